"""English sentence frames of the listings, by split.

Slots: `{a}`, `{this}`, `{the}`, `{our}` are noun phrases with that determiner, holding
whichever attributes the sentence shall tell; `{col}`, `{pat}`, `{pats}`, `{cnt}`, `{cat}`
single values (`{patn}` and `{pats}` the pattern as a thing); `{is}`, `{it}`,
`{its}`, `{them}`, `{has}`, `{does}`, `{s}` agree with the product's number. `{n}`
is a number of something else, `{xs}` another product, `{mat}`, `{who}`, `{place}`, `{brand}`
what they are called. Frames of different splits share no sentence.
"""

from __future__ import annotations

from collections.abc import Mapping

Frames = Mapping[str, tuple[str, ...]]


def _commas(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.strip().split("\n") if line)


#: Component orders of titles: N = the noun phrase, R = what it leaves out, F = fillers,
#: B = the brand. An empty component goes with the separator before it.
TITLE_SHAPES: Frames = {
    "train": _lines("""
N R F
N, R, F
N - R - F
N | R | F
B N R
B N, R
B F N R
B F N, R F
F N R
F N R F
F N, R - B
F N (R) F
B: N, R
B: N R F
B - N - R
B - N, R, F
B | N | R | F
N R by B
N, R by B
N by B, R
F N by B, R
N (R) - B
N (R)
N [R] F
N / R / F
N / R / B
F | N | R
F - N - R
F, N, R
R N F
R, N, F
R - N - B
B R N F
F R N
R | N | F | B
N R, F, B
N. R. F
B. N. R
F: N, R
N ~ R ~ B
B F - N R
N, F, R
N F R
N - F - R
N F - R - B
"""),
    "dev": _lines("""
N; R; F
B, N, R, F
F - N (R)
N from B, R
R / N / F
B F N - R
"""),
    "test": _lines("""
N, R | B
B / N / R / F
N from B - R, F
F N - R (B)
B (F): N, R
R: N - F
N, R; B
F B N R
N F | B | R
"""),
}
#: Sentences with a noun phrase that tells any attributes.
PHRASES: Frames = {
    "train": _lines("""
{this} {is} made for everyday life.
{this} {is} a pleasure to use.
{this} will please {who}.
{this} come{s} straight from our workshop.
{this} bring{s} good mood to {place}.
{this} {has} been made with great care.
{this} fit{s} in well with {place}.
{this} {is} at home in {place}.
{this} look{s} good from every side.
{this} {is} what {who} will remember.
{this} make{s} a welcome gift for {who}.
{this} {is} the work of {brand}.
{this} last{s} for many years.
with {this} you bring a bit of joy into {place}.
choose {this} for {who}.
meet {our}, loved by {who}.
discover {our}, made by hand at {brand}.
say hello to {our}.
we are proud of {our}.
our customers love {the}.
treat yourself to {a}.
you are looking at {a} of high quality.
on offer here: {a}.
here {is} {a} for {who}.
{brand} presents {a} for {place}.
{a} for {who} and for {place}.
{a}, made to last.
{a}, just as you would expect from {brand}.
looking for {a}? You have found the right page.
if you need {a}, this listing is for you.
what you get is {a}.
you will receive {a}.
you are buying {a}.
your order brings {a} to your door.
the parcel contains {a}.
in the box you will find {a}.
we send you {a}, carefully packed.
the photograph shows {a}.
in the picture you see {a}.
this listing is for {a}.
this offer is for {a} by {brand}.
for sale: {a}.
add {a} to your order today.
give {who} {a}.
{who} will be glad about {a}.
nothing suits {place} better than {a}.
{the} {is} ready for {place}.
{the} {does} not need much care.
{the} you see here {is} new and unused.
{the} arrive{s} ready to use.
{the} {has} a timeless look.
{the} {is} made from {mat}.
sometimes all it takes is {a}.
imagine {a} in {place}.
every home could use {a}.
this is {a} for people with good taste.
it is {a} you will not want to miss.
a classic from {brand}: {a}.
our tip for {place}: {a}.
why not try {a}?
{this} {has} been waiting for you.
{this} {is} now in stock.
{this} {is} easy to like.
{this} will find {its} place in {place}.
{this} turn{s} heads in {place}.
{this} deserve{s} a place in {place}.
{this} {is} sold by {brand}.
{the} in the photograph {is} exactly what you get.
{the} {is} a good choice for {who}.
{the} ship{s} in a strong box.
bring home {a}.
get {a} at a good price.
order {a} from {brand} now.
buy {a} and enjoy it every day.
your search for {a} ends here.
we have {a} in stock for you.
there is nothing like {a}.
{who} asked us for {a}, and here you are.
{brand} shows how good {a} can look.
today in our shop: {a}.
this page describes {a}.
who would not like to own {a}?
a must for {place}: {a}.
new from {brand}: {a}.
we designed {a} for {place}.
our makers built {a} that will last.
unpack {a} and be happy.
product of the week: {a}.
"""),
    "dev": _lines("""
{this} win{s} hearts at once.
let {a} brighten {place}.
{brand} has created {a} for {who}.
you are getting {a}.
{the} {is} quick to become a favourite.
what arrives is {a}.
we offer {a} at a fair price.
a present for {who}: {a}.
"""),
    "test": _lines("""
{this} belong{s} in {place}.
{this} {is} bound to delight {who}.
enjoy {a} from {brand}.
included in this sale: {a}.
we are happy to offer you {a}.
surprise {who} with {a}.
{the} from {brand} {is} built to be used.
you can order {a} here.
{our} {is} a quiet star in {place}.
delivered to your home: {a}.
few things beat {a} in {place}.
shown here {is} {a}.
"""),
}
COLOURS: Frames = {
    "train": _lines("""
{it} come{s} in {col}.
the colour is {col}.
the colour is called {col}.
{it} {is} {col} all over.
{its} colour is {col}.
we made {them} in {col}.
you get {them} in {col}.
we chose {col} as the colour.
the main colour is {col}.
dyed in {col}.
finished in {col}.
the {col} tone goes with any room.
what stands out is the {col} colour.
a warm look in {col}.
{col} is the colour of this model.
the shade you are buying is {col}.
in {col}, as pictured.
coloured {col} by hand.
our designers settled on {col}.
the whole surface is kept in {col}.
it was the {col} that won us over.
{col} from edge to edge.
this version is {col}.
the chosen colour: {col}.
a strong {col} that stays bright.
please note that this listing is for the {col} version.
the dye gives a deep {col}.
"""),
    "dev": _lines("""
you will love the {col} shade.
expect {col} as the main tone.
painted in {col}.
"""),
    "test": _lines("""
{it} {is} available to you in {col}.
the tone is {col}.
delivered in {col}.
{col} gives {them} character.
for the colour we picked {col}.
"""),
}
PATTERNS: Frames = {
    "train": _lines("""
the surface is {pat}.
{its} design is {pat}.
{it} {is} {pat} all around.
the pattern: {patn}.
the look is {pat}.
the outside is {pat}.
{it} come{s} {pats}.
we made {them} {pats}.
you get {them} {pats}.
designed {pats}.
the print is {patn}.
what you see is a {pat} design.
a {pat} surface sets the tone.
our designers kept the surface {pat}.
for the surface we chose a {pat} design.
the {pat} look never goes out of style.
finished {pats}.
as for the pattern, it is {pat}.
a {pat} style, as pictured.
made {pats} from top to bottom.
we like it {pat}.
this version is {pat}.
the fabric design is {pat}.
please note that the surface is {pat}.
{pat} is the style we chose.
the finish: {pat}.
a clear, {pat} design.
"""),
    "dev": _lines("""
expect a {pat} surface.
the {pat} design speaks for itself.
decorated in a {pat} style.
"""),
    "test": _lines("""
the design you see is {pat}.
{its} surface is {pat}.
{it} arrive{s} {pats}.
our artists gave {them} a {pat} look.
the style is {pat}.
"""),
}
COUNTS: Frames = {
    "train": _lines("""
the box contains {cnt}.
you will receive {cnt}.
the pack holds {cnt}.
in the parcel: {cnt}.
the price is for {cnt}.
you are buying {cnt}.
each order brings you {cnt}.
we send you {cnt}.
contents: {cnt}.
delivered: {cnt}.
the package has {cnt} in it.
this offer covers {cnt}.
the quantity is {cnt}.
sold as {cnt}.
you get {cnt} for this price.
an order means {cnt}.
packed in a box: {cnt}.
the set consists of {cnt}.
what you will find in the box: {cnt}.
we count {cnt} in every box.
please note that you will get {cnt}.
for this price we deliver {cnt}.
number of items: {cnt}.
this version comes as {cnt}.
you can expect {cnt} in the parcel.
the photograph shows all you get: {cnt}.
"""),
    "dev": _lines("""
inside you will find {cnt}.
the listing is for {cnt}.
shipped as {cnt}.
"""),
    "test": _lines("""
the delivery includes {cnt}.
your parcel will hold {cnt}.
the offer is for {cnt}.
included: {cnt}.
we pack {cnt} for you.
"""),
}
#: Bullets of one attribute, by attribute index; key-value bullets come on top.
BULLETS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "train": (
        _lines("{a} for {who}\n{cat} for {place}\na {cat} as it should be\nthis is a {cat}\n"
               "{cat} from {brand}\nhigh quality {cat}\n{cat} made of {mat}\nclassic {cat} shape"),
        _lines("in {col}\ncomes in {col}\n{col} colour\n{col}, as pictured\nfinished in {col}\n"
               "colour is {col}\nlovely {col} tone\n{col} that does not fade\ndyed {col}"),
        _lines("{cnt} in the box\nyou get {cnt}\ncontains {cnt}\n{cnt} per pack\nsold as {cnt}\n"
               "delivery of {cnt}\npackage with {cnt}\n{cnt} included\nbox of contents: {cnt}"),
        _lines("{pat} design\n{pat} surface\n{pat} look\ncomes {pats}\n{pat}, as pictured\n"
               "made {pats}\n{pat} style\npattern is {patn}\n{pat} all around\n{pat} finish"),
    ),
    "dev": (
        _lines("your new {cat}\n{cat} for daily use"),
        _lines("shade is {col}\nmade in {col}"),
        _lines("pack contents {cnt}\nships as {cnt}"),
        _lines("{pat} exterior\nwith a {pat} design"),
    ),
    "test": (
        _lines("a {cat} you can rely on\n{cat} designed by {brand}"),
        _lines("colour tone {col}\navailable in {col}\n{col} finish"),
        _lines("includes {cnt}\nset contents: {cnt}\nyou will receive {cnt}"),
        _lines("design is {pat}\n{pat} appearance\nlooks {pat}"),
    ),
}  # fmt: skip
#: Sentences that tell no attribute: care, delivery, the brand, sizes.
NEUTRAL: Frames = {
    "train": _lines("""
wipe clean with a damp cloth.
do not use bleach.
keep away from open fire.
easy to clean and easy to store.
wash by hand in lukewarm water.
do not leave in the sun for more than {n} hours.
let dry in the air before storing.
made from {mat}.
the material is {mat}, which ages well.
we only use {mat} from certified sources.
our suppliers work with {mat} and know it well.
orders placed before {n} o'clock leave our warehouse the same day.
ships within {n} working days.
delivery takes {n} to {m} days.
free returns within {n} days.
you may return your order within {n} days.
we offer a warranty of {n} months.
our customer service answers within {n} hours.
shipping is free for orders above {m} euros.
packed without plastic.
we plant a tree for every {n} orders.
{brand} was founded {m} years ago by a group of friends.
{brand} is a family business in the {n}th generation.
at {brand} we believe in simple things.
our workshop has {n} employees and a cat.
the height is about {m} cm.
the weight is about {m}0 g.
about {n} cm wide and {m} cm high.
measurements can vary by {n} mm.
rated {d} out of 10 by our customers.
more than {m}00 customers have left a review.
a gift card can be added at the checkout.
gift wrapping is available on request.
designed in our studio and made in small batches.
every detail has been thought through.
ideal for {place}.
a nice present for {who}.
suitable for {place} and many other places.
quality you can feel.
no assembly needed.
tested for safety by an independent laboratory.
free from harmful substances.
please read the care label before first use.
store in a dry place.
recommended for ages {n} and up.
our {n} shops are open from Monday to Saturday.
if anything is wrong, write to us and we will put it right.
photographs are taken in daylight.
the picture may look a little different on your screen.
pay by card, invoice or bank transfer.
join our newsletter and save {n} percent on your next order.
{who} told us how much they enjoy it.
reviews praise the finish and the fast delivery.
good design should be for everyone.
there is a story behind everything we make.
it all began in a small garage near the sea.
we work with {n} craftsmen from the region.
the idea came to us on a rainy Sunday.
nothing about it is left to chance.
small differences show that it is made by hand.
machine wash is not recommended.
use a soft brush to remove dust.
avoid contact with oil and strong soap.
turn it now and then so that it ages evenly.
air it out for {n} hours after unpacking.
parcels go out every weekday at {n} o'clock.
delivery abroad takes up to {m} days.
you can follow your parcel online.
we pack every order by hand.
collect your order from our shop after {n} hours.
refunds reach your account after {n} days.
the warranty covers all faults of material for {n} years.
spare parts are kept for {n} years.
call us on weekdays between {n} and 18 o'clock.
the depth is {n} cm.
it weighs less than {m} kg including the box.
the box measures {m} by {m} by {n} cm.
allow {n} to {m} mm of tolerance.
{m} percent of our buyers would order again.
this listing has {m} watchers.
last updated in week {n}.
{brand} makes things for {place}.
{brand} has its home in {country}.
our makers come from {country}.
produced in {country} under fair conditions.
{country} has a long tradition of good craft.
the founder of {brand} learned the trade from an uncle.
at {brand} nobody is in a hurry.
we test each batch for {m} hours.
every batch gets a number such as {code}.
please quote article number {code} when you write to us.
{mat} is light and strong.
{mat} can be repaired and recycled.
parts of it are made of {mat}.
{mat} from {country} is what we like best.
nice to touch and easy to look after.
it feels right from the first day.
a small thing that makes a big difference.
hold it in your hands and you will understand.
take your time and look at all the photographs.
scroll down for more details.
all prices include tax.
we also take orders by telephone.
company orders are welcome.
ask for a discount from {m} orders upwards.
your satisfaction is our goal.
the perfect excuse to redecorate {place}.
it fits on any shelf in {place}.
great for {who} and for yourself.
{who} will thank you for it.
we wish you a lot of joy with it.
thank you for supporting a small business.
follow {brand} for news and offers.
not a toy for babies.
keep the packaging for later transport.
the label can be removed easily.
stock is limited, so do not wait too long.
the next delivery arrives in {n} weeks.
"""),
    "dev": _lines("""
dry with a soft towel after use.
our team replies to every message within {n} hours.
dispatched from our warehouse in {n} to {m} days.
{brand} started as a market stall.
roughly {m} cm tall.
keep the receipt for {n} months.
smoke-free household.
a favourite of {who} for years.
climate neutral delivery.
shake off dust before you put it away.
our van passes by every {n} days.
we refund postage up to {m} euros.
{mat} was our material of choice.
built with {place} in mind.
{brand} employs {m} people.
{country} is where our makers live.
serial number {code} is on the label.
about {n} cm deep.
made to be passed on to {who}.
service hours end at {n} in the evening.
please recycle the box.
the inner parts are {mat}.
gladly bought again by {m} percent of buyers.
nothing fancy, simply well done.
"""),
    "test": _lines("""
clean gently with mild soap.
please do not tumble dry.
your parcel leaves us after {n} days at the latest.
express delivery within {n} hours is possible.
{brand} has stood for good craft for {m} years.
our founder still checks the work every week.
it measures about {m} cm from top to bottom.
exchange is possible for {n} weeks.
all parcels are insured.
{mat} feels pleasant and wears slowly.
we answer questions in {n} languages.
thought out down to the last detail.
perfect for {place}, and for {who} as well.
made to be used and not to be looked at.
voted product of the month by {m} readers.
protect from frost.
rinse with cold water if needed.
use no sharp tools when you open the parcel.
we hand your order to the carrier within {n} hours.
tracking details arrive by e-mail.
{brand} is run by a brother and a sister.
the people at {brand} live and work in {country}.
sourced and sewn in {country}.
the total weight comes to {m}0 g.
roughly as wide as {n} cm.
size tolerance is below {n} mm.
{m} shoppers have it on their wish list.
average rating: {d} points of 10.
quote {code} if you have a question.
{mat} was chosen because it is kind to the skin.
the core is {mat}.
it keeps its shape for years.
a little luxury for {place}.
{who} would pick the same.
price includes all taxes.
larger orders get {n} percent off.
we reply within {n} hours, even at weekends.
no tools are required.
unpack, place, enjoy.
quality control takes place {n} times a week.
stored in a clean and dry warehouse.
back in stock after {n} weeks.
for any trouble there is a helpline.
fair wages are a matter of course for us.
you can tell that people enjoyed making it.
"""),
}
#: Sentences about other products, which must not be taken for this one.
DISTRACTORS: Frames = {
    "train": _lines("""
goes well with our {xs}.
looks great next to our {xs}.
pairs nicely with {xs} from the same range.
customers also bought our {xs}.
customers who viewed this also looked at {xs}.
why not order our {xs} as well?
see also our {xs}.
also in our shop: {xs}.
our {xs} are sold separately.
combine with our {xs} for a complete look.
do not forget to look at our {xs}.
from the same collection: {xs} (sold separately).
you may also like our {xs}.
matching {xs} can be found in our shop.
next week we will bring out new {xs}.
last year we became known for our {xs}.
{brand} is famous for {xs}.
{brand} started out with {xs}.
the {xs} in the background are not part of this offer.
decoration such as {xs} is not included.
not to be confused with our {xs}.
our bestseller last season were the {xs}.
together with {xs} it makes a fine gift.
many people put it beside {xs}.
ask us about our {xs}.
save {n} percent on {xs} this week.
for {place} we also recommend {xs}.
other customers were happy with our {xs}.
the {xs} shown next to it are available on another page.
we also make {xs}.
if you like this, have a look at the {xs} by {brand}.
add {xs} for a small extra charge.
the series also has {xs}, which you can order separately.
{who} bought it together with {xs}.
new in our shop: {xs}.
soon to come: {xs}.
our other product, {xs}, won a prize.
fans of {xs} will like it too.
a good companion to {xs}.
coming from our {xs}, many customers stay with us.
we took the photograph beside our {xs}.
the stand, the table and the {xs} shown are only props.
looking for {xs}? You will find them in another listing.
{xs} by {brand} are on sale until Sunday.
our {xs} have their own page.
customers from {country} like to order {xs} as well.
the next collection will bring {xs}.
we recently ran out of {xs}.
our grandmother used to make {xs}.
do you know our {xs} already?
"""),
    "dev": _lines("""
nice in combination with our {xs}.
please also visit our page with {xs}.
{xs} are offered separately.
we are also known for {xs}.
often bought together with {xs}.
"""),
    "test": _lines("""
a perfect match for our {xs}.
our {xs} would suit it well.
take a look at our {xs}, too.
{xs} can be ordered on a separate page.
{xs} in the picture are decoration and not included.
the same workshop also makes {xs}.
others have paired it with {xs}.
before this, {brand} sold mainly {xs}.
some buyers add {xs} to their basket.
it was inspired by our {xs}, which are sold elsewhere.
next to it in our shop window you will find {xs}.
those who own our {xs} will feel at home with it.
"""),
}
#: Lines of a spec sheet that tell no attribute.
SPEC_LINES: Frames = {
    "train": _lines("""
Material: {mat}
Weight: {m}0 g
Weight: {n}.{n} kg
Height: {m} cm
Width: {m} cm
Depth: {n} cm
Item code: {code}
Article number: {code}
SKU: {code}
Brand: {brand}
Manufacturer: {brand}
Country of origin: {country}
Made in: {country}
Warranty: {m} months
Guarantee: {n} years
Delivery time: {n} days
Shipping weight: {m}00 g
Care: wipe clean
Care: hand wash
Washing: {m} degrees
Season: all year
Target group: adults
Suitable for: {place}
Occasion: birthday
Use: indoor
Use: indoor and outdoor
Assembly: not needed
Batteries: not needed
Packaging: cardboard
Packaging size: {m} x {m} x {n} cm
Year: {y}
Collection: autumn
Style: modern
Style: classic
Finish: matt
Finish: glossy
Age: from {n} years
Rating: {d} out of 10
Returns: within {m} days
Stock: {m}0
Certificate: {code}
Goes with: {xs}
Also available: {xs} (sold separately)
Recommended with: {xs}
Not included: {xs}
Customers also bought: {xs}
Designer: {brand}
Condition: new
Surface: smooth
Recyclable: yes
Tested: yes
Gift box: available
Price group: {n}
"""),
    "dev": _lines("""
Composition: {mat}
Gross weight: {m} g
Total height: {m} cm
Reference: {code}
Label: {brand}
Origin: {country}
Support: {n} years
Dispatch: {n} days
Cleaning: damp cloth
Room: {place}
Matching product: {xs}
Parcel: {m} x {m} cm
Line: essentials
Vegan: yes
Status: new
Batch: {code}
"""),
    "test": _lines("""
Main material: {mat}
Net weight: {m} g
Product height: {m} cm
Product width: {n} cm
Model number: {code}
Supplier: {brand}
Produced in: {country}
Warranty period: {n} years
Sent within: {n} days
Maintenance: wipe with a dry cloth
Ideal for: {place}
Pairs well with: {xs}
Sold separately: {xs}
Carton size: {m} x {m} cm
Series: home
Tone of finish: satin
Sustainability: recycled box
First listed: {y}
EAN: {code}{code}
Customer rating: {d} of 10
"""),
}
SLOTS: Mapping[str, Frames] = {
    "mat": {
        "train": _commas("cotton,wool,oak,steel,ceramic,glass,bamboo,linen,rubber,canvas,"
                       "recycled plastic,stoneware,leather,ash wood,aluminium,felt"),
        "dev": ("cork", "maple", "porcelain"),
        "test": ("birch wood", "organic cotton", "enamel", "polyester"),
    },
    "who": {
        "train": _commas("your parents,your best friend,"
                       "the whole family,a colleague,your neighbour,"
                       "anyone,beginners,collectors,guests,your partner,grandparents,young people,"
                       "people who love good design,a friend,your children,teachers"),
        "dev": ("your sister", "new neighbours", "newlyweds"),
        "test": ("your brother", "someone special", "design lovers", "your team"),
    },
    "place": {
        "train": _commas("the kitchen,the living room,the office,"
                       "the garden,the hallway,a small flat,"
                       "the balcony,the holiday home,the bedroom,the studio,the terrace,"
                       "a big house,"
                       "the playroom,the guest room,the beach house,your favourite corner"),
        "dev": ("the library", "the cabin", "the attic"),
        "test": ("the reading corner", "the summer house", "the workplace", "the hall"),
    },
    "country": {
        "train": _commas("Portugal,Italy,Denmark,Poland,Japan,Germany,Turkey,India"),
        "dev": ("Spain", "Finland"),
        "test": ("Sweden", "Austria", "Vietnam"),
    },
}  # fmt: skip
