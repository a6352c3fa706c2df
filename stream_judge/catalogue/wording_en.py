"""English phrasings of policies, by split.

A rule is a lead-in (or nothing) and one rule frame. Slots: `{in}` the attributes that
count, `{out}` those that do not, `{ina}`/`{outa}` the same joined by "and", `{ino}`/`{outo}`
by "or"; `{ins}`, `{outes}`, `{inis}`, `{outis}` make verbs agree with one or several.
"""

from __future__ import annotations

from collections.abc import Mapping

from stream_judge.catalogue.phrases import lines

Frames = Mapping[str, tuple[str, ...]]

NAMES: tuple[tuple[str, ...], ...] = (
    ("category", "kind of product", "type of product", "product type", "kind"),
    ("colour", "color", "hue", "shade"),
    ("count", "number of items", "quantity", "number of pieces"),
    ("pattern", "print", "surface design", "pattern on the surface"),
)
LEADS: Frames = {
    "train": lines("""
You check whether the pictures of a listing show what its text says.
You compare a product picture with its listing.
Decide whether the picture fits the text.
Look at the picture and read the listing.
Your task is to judge product listings.
You are the quality check of an online shop.
Every listing has a picture and a text.
Sellers write the texts and upload the pictures.
Tell us whether text and picture belong together.
We want pictures that show what is sold.
This is the policy of our marketplace.
A listing is relevant when its picture shows the product of the text.
Compare what the text claims with what the picture shows.
Please review each product update.
The picture has to agree with the text.
Answer Yes if the picture fits the listing and No if it does not.
Buyers complain when a picture shows something else.
These are the rules for this shop.
Judge the listing below.
Read the text, look at the picture, then decide.
"""),
    "dev": lines("""
You inspect listings before they go online.
Our shop only publishes honest pictures.
Check text against image.
"""),
    "test": lines("""
You review what sellers upload to our shop.
Say whether the image backs up the description.
Pictures must not mislead our buyers.
You verify product pages for a retailer.
Hold the picture against the text.
"""),
    "wild": lines("""
Hello! Quick note from the catalogue team.
Another angry letter arrived this morning.
Policy memo, autumn edition.
To whoever checks the uploads:
Think like a shopper who opens the parcel.
"""),
}
#: The attributes that count are named.
POSITIVE: Frames = {
    "train": lines("""
Judge only by the {ina}.
Only the {ina} count{ins}.
Only the {ina} matter{ins}.
Only the {ina} must match.
Check only the {ina}.
Compare only the {ina}.
Look only at the {ina}.
The {ina} must match, nothing else does.
The {ina} must agree, everything else is free.
Text and picture have to agree in the {ina} only.
What counts is the {ina}, nothing else.
What matters is the {ina} and nothing else.
Answer Yes if the {ina} agree{ins}, whatever else differs.
Say No only if the {ino} differs.
Only a difference in the {ino} is a mistake.
A listing fits when the {ina} agree{ins}.
Nothing but the {ina} is to be judged.
The verdict depends on the {ina} alone.
Pay attention to the {ina} only.
Everything except the {ina} may differ.
The picture must show the right {ina}; the rest is not important.
We only care about the {ina}.
Consider the {ina} and nothing more.
Reject a listing only for a wrong {ino}.
Accept any picture with the right {ina}.
Base your answer on the {ina} alone.
The {ina} decide{ins}, the rest does not.
Of all the attributes only the {ina} count{ins}.
The {ina} must be the same in picture and text; other differences are fine.
If the {ina} agree{ins}, answer Yes.
If the {ino} is wrong, answer No; in all other cases answer Yes.
For this seller only the {ina} count{ins}.
For this seller the picture must show the right {ina}.
Buyers here only mind the {ina}.
Anything may differ as long as the {ina} agree{ins}.
The rest may differ, but not the {ina}.
Make sure that the {ina} match{ins}; do not check more than that.
"""),
    "dev": lines("""
Your verdict rests on the {ina} only.
Limit the check to the {ina}.
Differences matter only in the {ino}.
"""),
    "test": lines("""
Let only the {ina} decide.
The only thing to verify is the {ina}.
It is enough that the {ina} match{ins}.
A picture is wrong only when the {ino} is wrong.
"""),
    "wild": lines("""
Does the {ina} fit? Then it is a yes, whatever the rest looks like.
Counts: {in}. Does not count: {out}.
Complaints came in about a wrong {ino}, so that is all we look at; never mind the {outo}.
Must be right: {in}. May be anything: {out}.
To check -> {in}
"""),
}
#: The attributes that do not count are named (fewer than four count).
NEGATIVE: Frames = {
    "train": lines("""
Ignore the {outa}; everything else has to agree.
Ignore the {outa}.
Do not look at the {outo}; all the rest must match.
The {outa} do{outes} not matter, everything else does.
The {outa} may differ, the rest must match.
A different {outo} is fine; any other difference is a mistake.
Everything counts except the {outa}.
Everything must match except the {outa}.
Everything but the {outa} has to agree.
Disregard the {outa} and check all the rest.
The {outa} do{outes} not count.
Pay no attention to the {outo}.
Leave the {outa} out of account; the rest counts.
We do not care about the {outo}, but all else must be right.
Differences in the {outo} are allowed, no others.
All attributes count apart from the {outa}.
Accept any {outo}; the rest must be as the text says.
The picture may show another {outo}, but nothing else may differ.
A wrong {outo} is no reason to say No; any other mistake is.
Whatever the {outo}, the rest has to match.
Sellers are free in the {outo}; all else must agree.
Do not judge the {outo}. Judge everything else.
The {outa} {outis} not important; the other attributes are.
Skip the {outa}. Compare the other attributes.
Overlook the {outa}, but be strict with the rest.
For this seller the {outa} do{outes} not count; everything else does.
If nothing but the {outo} differs, answer Yes.
Say Yes even if the {outo} is wrong, and No if anything else is.
Buyers here do not mind the {outo}; they mind everything else.
Text and picture must agree, except in the {outo}.
Apart from the {outa}, nothing may differ.
Check all attributes but the {outa}.
"""),
    "dev": lines("""
The {outa} can be anything; the others must be right.
Never reject a listing because of the {outo}; reject it for anything else.
"""),
    "test": lines("""
Any {outo} will do, as long as the rest agrees.
Turn a blind eye to the {outo}; nothing else is forgiven.
With the exception of the {outa}, all must match.
"""),
    "wild": lines("""
Is only the {outo} off? Let it pass! Anything else off? Stop it.
Not our problem: {out}. Our problem: {in}.
Nobody has ever sent a parcel back over the {outo}; they do over the {ino}.
Free choice of {outo}, no freedom in the {ino}.
"""),
}
#: Both are named.
BOTH: Frames = {
    "train": lines("""
The {ina} must match, the {outa} do{outes} not matter.
The {ina} count{ins}, the {outa} do{outes} not.
Check the {ina} and ignore the {outa}.
The {ina} must agree; the {outa} may differ.
Ignore the {outa}, but check the {ina}.
The {ina} must be right. The {outa} may be wrong.
Compare the {ina}. Do not compare the {outa}.
Be strict with the {ina} and generous with the {outa}.
We care about the {ina}, not about the {outo}.
The {outa} may differ, the {ina} may not.
A wrong {ino} means No, a wrong {outo} does not.
The {outa} {outis} free, the {ina} {inis} not.
Judge by the {ina}, not by the {outo}.
It is the {ina} that count{ins}; the {outa} do{outes} not count.
Differences in the {ino} matter, differences in the {outo} do not.
Say No when the {ino} differs; accept any {outo}.
Important: the {ina}. Not important: the {outa}.
For this seller the {ina} count{ins} and the {outa} do{outes} not.
A listing fits when the {ina} agree{ins}, even if the {outa} do{outes} not.
Answer No for a wrong {ino}, but Yes if only the {outo} is wrong.
The picture must show the right {ina}; it may show any {outo}.
Buyers mind the {ina}; they do not mind the {outa}.
Ignore the {outa} and judge by the {ina}.
"""),
    "dev": lines("""
Reject a wrong {ino}, tolerate a wrong {outo}.
The {ina} decide{ins}; pass over the {outa}.
"""),
    "test": lines("""
Insist on the right {ina}, and let any {outo} pass.
The {outa} can vary, but the {ina} cannot.
Mistakes in the {ino} are serious, those in the {outo} are not.
"""),
    "wild": lines("""
The {ina}? Yes, that has to be right. The {outa}? No, forget it.
Strict on: {in} / relaxed on: {out}
I ordered by the {ino} and got the wrong thing; about the {outo} I could not care less.
Tick for each of these: {in}. No tick needed: {out}.
"""),
}
#: All four count.
ALL: Frames = {
    "train": lines("""
Every attribute must agree.
Everything must match.
All of it counts: {in}.
All four attributes count.
The {ina} must all match.
Nothing may differ.
Any difference is a mistake.
Say No if anything differs.
Answer Yes only if everything agrees.
The picture must match the text in every respect.
The {ina} all count.
Check the {ina}; all must agree.
Text and picture must agree in the {ina}.
Each detail has to be right: {in}.
No difference is allowed, be it in the {ino}.
Compare all attributes: {in}.
A single difference is enough to say No.
The picture has to show exactly what the text says.
Be strict: {in} must all be right.
All attributes matter, none may differ.
Judge by the {ina}.
The {ina} must match.
Everything counts, nothing is ignored.
For this seller everything counts: {in}.
A wrong {ino} means No.
If anything differs, answer No.
Buyers mind every difference.
The picture must show the right {ina}.
"""),
    "dev": lines("""
There is no attribute that may differ.
Accept only complete agreement in the {ina}.
"""),
    "test": lines("""
Whatever the text claims, the picture must show.
Not one of the attributes may be wrong: {in}.
Insist on full agreement.
"""),
    "wild": lines("""
Is anything off, however small? Then it is a no.
Counts: {in}. Does not count: nothing.
Must be right: {in}. May be anything: -
Customers send it back for a wrong {ino}, so look at all of that.
"""),
}
SAMPLES: Frames = {
    "train": lines("""
Follow the samples.
Judge as the samples do.
The samples show the rule.
Learn the rule from the samples.
Decide like in the samples.
Answer as in the examples.
The examples show what counts.
Work out from the samples which differences matter.
Some attributes count and some do not; the samples show which.
Do as the samples show.
Apply the rule behind the samples.
The answers given to the samples are right; answer the same way.
What counts can be seen from the samples.
Use the samples as your guide.
Take the samples as your standard.
Let the samples tell you which differences are mistakes.
The rule is not written down; see the samples.
Copy the judgement of the samples.
Be as strict as the samples are.
Look at how the samples were judged and do the same.
Not every difference matters. The samples tell you which do.
The examples below were judged by our staff; judge alike.
Find out from the examples what must match.
Ignore what the samples ignore.
Which attributes must agree is shown by the samples.
Treat new listings like the samples.
Each sample has the right answer; follow them.
Stick to the samples.
See the samples for what matters to this seller.
Our samples speak for themselves.
Keep to the line of the samples.
Your answers should agree with the samples.
"""),
    "dev": lines("""
Go by the samples.
The judged examples set the rule.
Imitate the samples.
"""),
    "test": lines("""
Be guided by the samples.
Infer the rule from the examples given.
The samples decide what counts.
Judge in the spirit of the samples.
"""),
    "wild": lines("""
No rule here, just samples. What would they say?
See samples -> same logic
How did we handle earlier cases? Do that again.
"""),
}
