"""English words for the values of the attributes, and names shops give things.

Each table is indexed by value. Every word is said of one value only, so a listing can be
read in one way only. The words are shared by all splits: a value word nobody has ever seen
cannot be known. Brand names and filler words are not shared.
"""

from __future__ import annotations


def _commas(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


#: (singular, plural) nouns by category.
CATEGORY_NOUNS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("mug", "mugs"), ("coffee cup", "coffee cups"), ("tea mug", "tea mugs"),
     ("coffee mug", "coffee mugs")),
    (("bottle", "bottles"), ("water bottle", "water bottles"),
     ("drinking bottle", "drinking bottles"), ("flask", "flasks")),
    (("shirt", "shirts"), ("T-shirt", "T-shirts"), ("tee", "tees"),
     ("short-sleeved shirt", "short-sleeved shirts")),
    (("trousers", "trousers"), ("pants", "pants"), ("slacks", "slacks"),
     ("long pants", "long pants")),
    (("hat", "hats"), ("sun hat", "sun hats"), ("brimmed hat", "brimmed hats"),
     ("felt hat", "felt hats")),
    (("boot", "boots"), ("tall boot", "tall boots"), ("rain boot", "rain boots"),
     ("wellington", "wellingtons")),
    (("bag", "bags"), ("handbag", "handbags"), ("tote bag", "tote bags"),
     ("carrier bag", "carrier bags")),
    (("lamp", "lamps"), ("table lamp", "table lamps"), ("desk lamp", "desk lamps"),
     ("bedside lamp", "bedside lamps")),
    (("chair", "chairs"), ("dining chair", "dining chairs"),
     ("kitchen chair", "kitchen chairs"), ("side chair", "side chairs")),
    (("umbrella", "umbrellas"), ("rain umbrella", "rain umbrellas"),
     ("stick umbrella", "stick umbrellas"), ("brolly", "brollies")),
    (("ball", "balls"), ("play ball", "play balls"), ("toy ball", "toy balls"),
     ("rubber ball", "rubber balls")),
    (("cushion", "cushions"), ("throw pillow", "throw pillows"),
     ("scatter cushion", "scatter cushions"), ("sofa cushion", "sofa cushions")),
)  # fmt: skip
#: Categories always spoken of in the plural.
ALWAYS_PLURAL = frozenset({3})
#: Categories with which "a pair" could mean one thing or two.
PAIRED = frozenset({3, 5})

COLOUR_WORDS: tuple[tuple[str, ...], ...] = (
    ("red", "red", "crimson", "scarlet", "ruby red"),
    ("orange", "orange", "tangerine", "mandarin", "pumpkin orange"),
    ("yellow", "yellow", "lemon yellow", "canary", "sunflower yellow"),
    ("green", "green", "emerald", "moss green", "grass green"),
    ("blue", "blue", "royal blue", "azure", "cobalt blue"),
    ("purple", "purple", "violet", "lilac", "plum purple"),
    ("pink", "pink", "fuchsia", "rose pink", "blush pink"),
    ("brown", "brown", "chestnut", "chocolate brown", "hazel"),
    ("black", "black", "jet black", "ebony", "coal black"),
    ("white", "white", "snow white", "ivory", "pearl white"),
)
PATTERN_ADJECTIVES: tuple[tuple[str, ...], ...] = (
    ("plain", "plain", "unpatterned", "solid", "patternless"),
    ("striped", "striped", "stripy", "stripe-patterned", "stripe-print"),
    ("dotted", "dotted", "polka-dot", "spotted", "dot-patterned"),
)
#: What stands after the noun: (connecting word, words that say the pattern).
PATTERN_TAILS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("with ", "no pattern"), ("with ", "a plain surface"), ("without ", "any print"),
     ("with ", "no print")),
    (("with ", "stripes"), ("with ", "a stripe pattern"), ("with ", "a striped print"),
     ("in ", "stripes")),
    (("with ", "dots"), ("with ", "polka dots"), ("with ", "a dotted print"), ("with ", "spots")),
)  # fmt: skip
#: Names of the pattern as values of "Pattern:".
PATTERN_NAMES: tuple[tuple[str, ...], ...] = (
    ("plain", "none", "solid", "unpatterned", "no pattern"),
    ("striped", "stripes", "stripe", "stripy", "stripe print"),
    ("dotted", "dots", "polka dots", "spots", "dot print"),
)
NUMERALS: tuple[tuple[str, ...], ...] = (("one", "1"), ("two", "2"), ("three", "3"))
#: (words that say the count, what joins them to a plural noun).
SET_PHRASES: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("set of two", " "), ("set of 2", " "), ("pack of two", " "), ("pack of 2", " "),
     ("2-pack", " of "), ("pair", " of "), ("duo", " of ")),
    (("set of three", " "), ("set of 3", " "), ("pack of three", " "), ("pack of 3", " "),
     ("3-pack", " of "), ("trio", " of ")),
)  # fmt: skip
#: The count as a title or a bullet says it, apart from the noun.
COUNT_LABELS: tuple[tuple[str, ...], ...] = (
    ("1 piece", "single", "one piece", "single item", "1 pc", "1-pack", "pack of 1", "1 item"),
    ("2 pieces", "set of 2", "two pieces", "pack of 2", "2 pcs", "2-pack", "set of two",
     "2 items", "pair"),
    ("3 pieces", "set of 3", "three pieces", "pack of 3", "3 pcs", "3-pack", "set of three",
     "3 items", "trio"),
)  # fmt: skip
#: The count as a noun of its own ("The box holds ...").
COUNT_NOUNS: tuple[tuple[str, ...], ...] = (
    ("one", "one piece", "1 piece", "one unit", "one item", "a single piece", "a single item"),
    ("two", "two pieces", "2 pieces", "two items", "a pair", "two units"),
    ("three", "three pieces", "3 pieces", "three items", "a trio", "three units"),
)
#: The count as the value of "Quantity:".
COUNT_NUMBERS: tuple[tuple[str, ...], ...] = (
    ("1", "one", "1 piece", "1 pc", "single"),
    ("2", "two", "2 pieces", "2 pcs", "set of 2"),
    ("3", "three", "3 pieces", "3 pcs", "set of 3"),
)
GENERIC_NOUNS = (
    ("item", "items"), ("piece", "pieces"), ("product", "products"), ("article", "articles"),
    ("model", "models"),
)  # fmt: skip

CATEGORY_KEYS = ("Category", "Product type", "Type", "Item type", "Kind", "Article", "Product")
COLOUR_KEYS = ("Colour", "Color", "Main colour", "Shade", "Colour name")
COUNT_KEYS = ("Quantity", "Pieces", "Number of items", "Items in box", "Pack size", "Count")
PATTERN_KEYS = ("Pattern", "Print", "Surface design", "Design", "Pattern type")

BRANDS: dict[str, tuple[str, ...]] = {
    "train": _commas(
        "Norvik,Alder & Pine,Hearthly,Brightmoor,Casa Lume,Tidewell,Oakline,Fennel & Co,"
        "Marlowe,Kestrel,Lindqvist,Papillon,Wrenfield,Suncove,Halden,Mirabel,Ostara,Pebblestone,"
        "Quillon,Ravensworth,Sagebrook,Thistledown,Umbria Living,Verano,Willowby,Yarrow,Zephyrine,"
        "Arden Works,Bellweather,Corvina,Dunmore,Elsworth,Fjordhaus,Greyfriars,Hollin,Ivarsson,"
        "Juniper Lane,Kilnhouse,Larkspur,Meridian Goods,Nettlefold,Orchard Row,Pomelo,Rookwood,"
        "Saltmarsh,Tamarind,Ulverton,Vesper,Windermere Trading,Ashby,Birchgate,Calder,Driftway,"
        "Everly,Foxglove,Gilderoy,Hartwell,Inglenook,Jasperson,Kinfolk Supply,Lumiere,Moorgate,"
        "Northbank,Olmo,Penrose,Rivelin,Stellan,Tollymore,Vantage,Westerly"
    ),
    "dev": _commas("Amberley Goods,Brackenridge,Coppice,Dovetail,Elkhorn,Farrow Lane"),
    "test": _commas(
        "Seabright,Hawthorn & Sons,Mondello,Petrichor,Larsen Hus,Tanglewood,Copperfield,"
        "Nimbus Home,Aster Row,Brindle,Galloway,Rosedale"
    ),
}
FILLERS: dict[str, tuple[str, ...]] = {
    "train": _commas(
        "new,classic,modern,premium,handmade,durable,lightweight,everyday,gift idea,bestseller,"
        "limited edition,high quality,eco-friendly,for home,for the office,for travel,for adults,"
        "for kids,unisex,outdoor,indoor,vintage style,retro,elegant,casual,stylish,cosy,compact,"
        "sturdy,soft,smooth,easy care,summer collection,winter collection,spring sale,2026 model,"
        "original,designer,deluxe,essential,popular,favourite,trendy,timeless,minimalist,rustic,"
        "Scandinavian style,for birthdays,for her,for him,for family,for everyday use,practical,"
        "comfortable,robust,charming,fine,great value,top rated,with gift box,free shipping,"
        "in stock,special offer,clearance,exclusive,signature,heritage,artisan,carefully made,"
        "long lasting,value,basic,standard,professional,urban,country style,coastal,festive,"
        "seasonal,relaxed,sleek,neat,pretty,lovely,beautiful,useful,handy,medium size,large,small,"
        "all-season,weekend,holiday,garden,party,school,studio,recycled material,vegan,well made,"
        "first choice,shop favourite,quality guaranteed,ready to ship,brand new,tested,certified,"
        "good looking,versatile,family size,fair trade,housewarming present,anniversary gift,"
        "thoughtful,warm,fresh,bold,gentle,quiet,cheerful,simple,honest,refined,contemporary"
    ),
    "dev": _commas(
        "must-have,next generation,hand-finished,smart,snug,crafted,award winning,"
        "for guests,for students,nordic look,sale item"
    ),
    "test": _commas(
        "superior,novelty,customer favourite,hand-picked,sustainable,upmarket,playful,for teens,"
        "for the whole family,city style,boutique,collector's choice,finest quality,laid-back,"
        "newly arrived,present idea,delightful,dependable,weather ready,hard-wearing"
    ),
}  # fmt: skip
