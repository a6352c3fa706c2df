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
""")
COUNTS_LABELS = ("Important", "Required", "Mandatory", "Relevant", "Check", "Must match", "Compare")
FREE_LABELS = ("Not important", "Not required", "Optional", "Irrelevant", "Ignore", "May differ")
NONE = ("none", "nothing")
JOINTS = (". ", ". ", "; ", ", ", ", but ", ", and ", ", while ")
LABEL_JOINTS = (". ", "; ", ", ", "\n")
COLON = ": "
END = "."
