"""English clauses that `wording_grammar` puts together, for the train split only.

`{Xa}` and the like become the slots of one side, `{ina}` or `{outa}` (see `wording_en`).
Clauses have no capital and no full stop.
"""

from __future__ import annotations

from stream_judge.catalogue.phrases import lines

#: What X is counts.
COUNTS = lines("""
the {Xa} must match
the {Xa} must be right
the {Xa} must be correct
the {Xa} must fit
the {Xa} must be the same
the {Xa} must be as described
the {Xa} must not differ
the {Xa} may not differ
the {Xa} count{Xs}
the {Xa} matter{Xs}
the {Xa} {Xis} important
the {Xa} {Xis} essential
the {Xa} {Xis} decisive
the {Xa} {Xis} required
the {Xa} {Xis} checked
the {Xa} {Xis} compared
the {Xa} need{Xs} to agree
the {Xa} should be correct
no mistake is allowed in the {Xo}
mistakes in the {Xo} are errors
a wrong {Xo} is a mistake
a wrong {Xo} is an error
a wrong {Xo} means No
a different {Xo} means No
wrong {Xo}: No
a difference in the {Xo} is an error
check the {Xa}
compare the {Xa}
verify the {Xa}
examine the {Xa}
look at the {Xa}
judge by the {Xa}
be strict with the {Xa}
be strict about the {Xa}
insist on the right {Xa}
pay attention to the {Xa}
ask for the right {Xa}
say No to a wrong {Xo}
reject a wrong {Xo}
do not accept a wrong {Xo}
do not let a wrong {Xo} through
we care about the {Xa}
we want the right {Xa}
we check the {Xa}
buyers care about the {Xa}
customers complain about a wrong {Xo}
the {Xa} must agree
the {Xa} must be accurate
the {Xa} must be exact
the {Xa} must be identical
the {Xa} must be true
the {Xa} must not be wrong
the {Xa} have to be right
the {Xa} cannot differ
the {Xa} cannot be wrong
the {Xa} can never be ignored
the {Xa} decide{Xs}
the {Xa} {Xis} crucial
the {Xa} {Xis} key
the {Xa} {Xis} mandatory
the {Xa} {Xis} relevant
the {Xa} {Xis} our concern
the {Xa} {Xis} what we look at
the {Xa} {Xis} judged
the {Xa} {Xis} fixed
the {Xa} play{Xs} a role
the {Xa} make{Xs} a difference
your verdict depends on the {Xa}
the answer depends on the {Xa}
everything depends on the {Xa}
it is about the {Xa}
differences in the {Xo} matter
differences in the {Xo} are not allowed
mistakes in the {Xo} are grave
mistakes in the {Xo} are unacceptable
a wrong {Xo} is unacceptable
a wrong {Xo} is a problem
a wrong {Xo} is forbidden
a wrong {Xo} is a reason to say No
a false {Xo} is an error
never accept a wrong {Xo}
never ignore the {Xa}
refuse a wrong {Xo}
block a wrong {Xo}
stop a wrong {Xo}
punish a wrong {Xo}
tolerate no wrong {Xo}
allow no other {Xo}
inspect the {Xa}
control the {Xa}
consider the {Xa}
focus on the {Xa}
concentrate on the {Xa}
care about the {Xa}
mind the {Xa}
take the {Xa} into account
test the {Xa}
require the right {Xa}
demand the right {Xa}
make sure the {Xa} {Xis} right
watch out for a wrong {Xo}
""")
#: What X is does not count.
FREE = lines("""
the {Xa} do{Xes} not count
the {Xa} do{Xes} not matter
the {Xa} may differ
the {Xa} may be wrong
the {Xa} may vary
the {Xa} can be different
the {Xa} can be ignored
the {Xa} can be anything you like
the {Xa} {Xis} free
the {Xa} {Xis} irrelevant
the {Xa} {Xis} unimportant
the {Xa} {Xis} not important
the {Xa} {Xis} not checked
the {Xa} {Xis} optional
the {Xa} play{Xs} no role
the {Xa} make{Xs} no difference
the {Xa} need not match
the {Xa} do{Xes} not have to agree
the {Xa} {Xis} up to the seller
a wrong {Xo} is fine
a wrong {Xo} is no mistake
a wrong {Xo} is not an error
a different {Xo} is acceptable
wrong {Xo}: Yes
mistakes in the {Xo} are fine
differences in the {Xo} are allowed
any {Xo} is fine
any {Xo} is good enough
ignore the {Xa}
disregard the {Xa}
overlook the {Xa}
skip the {Xa}
forget the {Xa}
do not check the {Xa}
do not compare the {Xa}
do not look at the {Xo}
do not judge by the {Xo}
pay no attention to the {Xo}
accept any {Xo}
allow any {Xo}
let a wrong {Xo} through
forgive a wrong {Xo}
say Yes to a wrong {Xo}
do not reject a wrong {Xo}
leave out the {Xa}
be relaxed about the {Xa}
be generous with the {Xa}
be lenient with the {Xa}
we do not care about the {Xo}
we do not check the {Xo}
nobody cares about the {Xo}
buyers do not mind the {Xo}
no customer complains about the {Xo}
the {Xa} need{Xs} no check
the {Xa} can vary freely
the {Xa} can change
the {Xa} may change
the {Xa} may be anything
the {Xa} may be ignored
the {Xa} may be false
the {Xa} {Xis} open
the {Xa} {Xis} negligible
the {Xa} {Xis} secondary
the {Xa} {Xis} not our concern
the {Xa} {Xis} not judged
the {Xa} {Xis} not relevant
the {Xa} {Xis} not decisive
the {Xa} {Xis} without meaning
the {Xa} decide{Xs} nothing
the {Xa} change{Xs} nothing
the {Xa} matter{Xs} to nobody
the answer does not depend on the {Xo}
your verdict does not depend on the {Xo}
it is not about the {Xo}
differences in the {Xo} do not matter
differences in the {Xo} are harmless
mistakes in the {Xo} are harmless
mistakes in the {Xo} do not count
mistakes in the {Xo} are acceptable
a wrong {Xo} is acceptable
a wrong {Xo} is allowed
a wrong {Xo} is harmless
a wrong {Xo} is no problem
a wrong {Xo} is no reason for a No
a false {Xo} is fine
never mind the {Xa}
never reject a wrong {Xo}
do not care about the {Xo}
do not mind the {Xo}
do not consider the {Xo}
do not be strict with the {Xo}
do not take the {Xa} into account
do not block a wrong {Xo}
excuse a wrong {Xo}
pardon a wrong {Xo}
tolerate a wrong {Xo}
permit any {Xo}
pass over the {Xa}
let the {Xa} be anything
take any {Xo}
neglect the {Xa}
omit the {Xa}
exclude the {Xa}
""")
REST_COUNTS = lines("""
the rest must match
the rest must be right
the rest counts
the rest is important
everything else counts
everything else matters
everything else must match
all else must be correct
the other attributes matter
all other attributes must agree
check the rest
compare everything else
be strict with everything else
reject everything else that is wrong
nothing else may differ
no other difference is allowed
any other difference is a mistake
any other mistake means No
everything else has to be right
everything else is important
everything else is checked
everything else is required
the others must be right
the others count
the others have to agree
reject it for anything else
nothing else can be ignored
no other mistake is acceptable
all the others matter
the remaining attributes must match
the rest decides
the rest is fixed
insist on the rest
""")
REST_FREE = lines("""
nothing else matters
nothing else counts
nothing else is checked
the rest may differ
the rest is free
the rest does not matter
everything else may differ
everything else is unimportant
everything else may be wrong
all other attributes are irrelevant
the other attributes do not count
ignore the rest
ignore everything else
forget the rest
accept everything else
other differences are fine
any other difference is allowed
no other mistake matters
the others may be wrong
the others do not matter
the others are free
the others can be anything
all the rest is irrelevant
the remaining attributes are unimportant
the rest can be ignored
the rest can be anything
everything else is free
everything else is allowed
everything else is harmless
no other attribute counts
do not check the rest
tolerate everything else
nothing else decides
""")
ONLY_COUNTS = lines("""
only the {Xa} count{Xs}
only the {Xa} {Xis} important
only the {Xa} must be right
only the {Xa} {Xis} checked
nothing but the {Xa} counts
nothing but the {Xa} must match
just the {Xa} must be right
just check the {Xa}
check nothing but the {Xa}
look at the {Xa} and at nothing else
the {Xa} alone decide{Xs}
the {Xa} alone must match
all that matters is the {Xa}
all that counts is the {Xa}
the one thing that counts is the {Xa}
reject only for a wrong {Xo}
say No only to a wrong {Xo}
only a wrong {Xo} means No
only mistakes in the {Xo} are errors
if the {Xa} {Xis} right, say Yes
if the {Xa} {Xis} right, all is well
say Yes whenever the {Xa} {Xis} right
a listing with the right {Xa} is good
as long as the {Xa} agree{Xs}, the answer is Yes
the right {Xa} {Xis} all we ask for
your verdict depends on the {Xa} only
the answer depends on nothing but the {Xa}
limit yourself to the {Xa}
confine yourself to the {Xa}
restrict the check to the {Xa}
concentrate on the {Xa} only
differences count only in the {Xo}
differences are errors only in the {Xo}
it is only about the {Xa}
the {Xa} only
the single criterion is the {Xa}
the only criterion is the {Xa}
the only question is whether the {Xa} agree{Xs}
nobody asks for more than the right {Xa}
the right {Xa} suffice{Xs}
the right {Xa} {Xis} sufficient
do no more than check the {Xa}
there is no mistake but a wrong {Xo}
if the {Xo} is wrong, say No, otherwise Yes
Yes means that the {Xa} {Xis} right
""")
ONLY_FREE = lines("""
everything but the {Xa} counts
everything but the {Xa} must match
everything except the {Xa} matters
all attributes except the {Xa} are important
all but the {Xa} must agree
only the {Xa} may differ
only the {Xa} can be ignored
only the {Xa} {Xis} free
only a wrong {Xo} is acceptable
apart from the {Xa} everything counts
besides the {Xa} nothing may differ
except for the {Xa}, all must be right
check everything except the {Xa}
ignore nothing but the {Xa}
if only the {Xo} differs, say Yes
reject every mistake except a wrong {Xo}
say No to all mistakes but a wrong {Xo}
your verdict depends on everything except the {Xa}
all attributes count, but not the {Xa}
all attributes count, only the {Xa} do{Xes} not
everything has to be right, only the {Xa} need not
everything must match, leaving aside the {Xa}
with the {Xa} left out, everything must match
nothing may differ but the {Xa}
never reject for a wrong {Xo}, but for everything else
a wrong {Xo} is the only mistake that is allowed
the one thing that may differ is the {Xa}
the only thing to ignore is the {Xa}
without regard to the {Xa}, everything must agree
""")
ALL_COUNT = lines("""
everything must match
everything must be right
everything counts
everything matters
everything must be as described
all attributes must agree
all attributes are important
every attribute is checked
every detail must be right
each attribute counts
nothing may differ
nothing can be ignored
no difference is allowed
no mistake is allowed
any mistake means No
any difference is an error
check everything
ignore nothing
reject every mistake
be strict with everything
everything is required
everything is important
every single attribute must be right
not a single difference is allowed
there is nothing that may differ
there is nothing to ignore
accept only full agreement
accept only what agrees in everything
complete agreement is required
all of it must be right
tolerate nothing
whatever is wrong means No
""")
COUNTS_LABELS = ("Important", "Required", "Mandatory", "Relevant", "Check", "Must match", "Compare")
FREE_LABELS = ("Not important", "Not required", "Optional", "Irrelevant", "Ignore", "May differ")
NONE = ("none", "nothing")
JOINTS = (". ", ". ", "; ", ", ", ", but ", ", and ", ", while ")
LABEL_JOINTS = (". ", "; ", ", ", "\n")
COLON = ": "
END = "."
NONCE = lines("""
{nonce} the {Xa}
{nonce} a wrong {Xo}
{nonce} any {Xo}
{nonce} with the {Xa}
the {Xa} {nonce}{Xs}
the {Xa} can {nonce}
the {Xa} {Xis} {nonce}
a wrong {Xo} is {nonce}
mistakes in the {Xo} are {nonce}
we {nonce} the {Xa}
""")
SYLLABLES = (
    "ba",
    "co",
    "den",
    "fi",
    "gu",
    "hal",
    "jo",
    "ke",
    "lin",
    "mo",
    "na",
    "per",
    "ro",
    "sti",
)
