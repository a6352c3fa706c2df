"""English clauses made of a construction and a word, for the train split only.

A policy says yes or no about attributes by the word it uses (check, ignore) and by what the
construction does to it ("do not ..." turns it round). Every construction here meets every
word of its kind, so that neither can be learnt by heart. Slots as in `wording_parts_en`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stream_judge.catalogue.phrases import lines, pick

Chance = Callable[[], float]

# (words that say "counts", words that say "does not count")
_VERBS = (
    lines("""
check
verify
examine
inspect
compare
review
assess
evaluate
validate
confirm
test
weigh
study
watch
mind
heed
respect
consider
scrutinise
question
measure
guard
note
look into
look after
go by
care about
think about
worry about
ask about
insist on
focus on
"""),
    lines("""
ignore
disregard
overlook
skip
forget
neglect
omit
dismiss
discount
drop
bypass
exempt
leave aside
set aside
put aside
leave out
look past
pass over
do without
forget about
"""),
)
_VERB_SAME = lines("""
{w} the {Xa}
please {w} the {Xa}
always {w} the {Xa}
you must {w} the {Xa}
you should {w} the {Xa}
you have to {w} the {Xa}
do {w} the {Xa}
we {w} the {Xa}
our buyers {w} the {Xa}
our staff {w} the {Xa}
your job is to {w} the {Xa}
remember to {w} the {Xa}
be sure to {w} the {Xa}
take care to {w} the {Xa}
it is right to {w} the {Xa}
we want you to {w} the {Xa}
we ask you to {w} the {Xa}
the {Xa} {Xis} something to {w}
""")
_VERB_TURNED = lines("""
do not {w} the {Xo}
don't {w} the {Xo}
never {w} the {Xo}
you must not {w} the {Xo}
you should not {w} the {Xo}
we do not {w} the {Xo}
we never {w} the {Xo}
nobody should {w} the {Xo}
avoid it to {w} the {Xo}
it is wrong to {w} the {Xo}
we do not want you to {w} the {Xo}
under no circumstances {w} the {Xo}
the {Xa} {Xis} nothing to {w}
""")
_STATES = (
    lines("""
important
essential
crucial
decisive
vital
central
critical
relevant
mandatory
required
significant
binding
necessary
obligatory
compulsory
fundamental
indispensable
at issue
what counts
under test
"""),
    lines("""
unimportant
irrelevant
optional
negligible
secondary
trivial
minor
insignificant
meaningless
unnecessary
immaterial
flexible
voluntary
arbitrary
a side issue
beside the point
of no interest
of no concern
"""),
)
_STATE_SAME = lines("""
the {Xa} {Xis} {w}
the {Xa} {Xis} always {w}
the {Xa} {Xis} very {w}
the {Xa} {Xis} really {w}
the {Xa} {Xis} considered {w}
the right {Xa} {Xis} {w}
the correct {Xa} {Xis} {w}
a match in the {Xo} is {w}
agreement in the {Xo} is {w}
for us the {Xa} {Xis} {w}
for buyers the {Xa} {Xis} {w}
here the {Xa} {Xis} {w}
treat the {Xa} as {w}
regard the {Xa} as {w}
""")
_STATE_TURNED = lines("""
the {Xa} {Xis} not {w}
the {Xa} {Xis} never {w}
the {Xa} {Xis} by no means {w}
the {Xa} {Xis} anything but {w}
the {Xa} {Xis} hardly {w}
a match in the {Xo} is not {w}
nobody finds the {Xo} {w}
for us the {Xa} {Xis} not {w}
do not treat the {Xo} as {w}
do not think that the {Xa} {Xis} {w}
""")
_FAULTS = lines("""
a wrong {Xo}
a different {Xo}
another {Xo}
a false {Xo}
an incorrect {Xo}
a mismatch in the {Xo}
a deviation in the {Xo}
a mistake in the {Xo}
a difference in the {Xo}
an error in the {Xo}
the wrong {Xo}
a picture with the wrong {Xo}
a listing with a false {Xo}
""")
# What is said of a fault: that it is one, or that it is none.
_VERDICTS = (
    lines("""
a mistake
an error
a fault
a defect
a problem
serious
grave
bad
fatal
unacceptable
intolerable
inadmissible
forbidden
prohibited
unforgivable
a reason to say No
too much
wrong
punished
a failure
misleading
"""),
    lines("""
fine
okay
acceptable
tolerable
admissible
allowed
permitted
harmless
forgivable
excusable
welcome
good enough
no error
no fault
no problem
no drama
all right
a trifle
in order
tolerated
"""),
)
_VERDICT_SAME = lines("""
{f} is {w}
{f} is always {w}
{f} is simply {w}
{f} is considered {w}
we find {f} {w}
for us {f} is {w}
with us {f} is {w}
""")
_VERDICT_TURNED = lines("""
{f} is not {w}
{f} is never {w}
{f} is by no means {w}
{f} is anything but {w}
we do not find {f} {w}
nobody finds {f} {w}
""")
_DEEDS = (
    lines("""
reject
refuse
block
stop
punish
decline
forbid
prohibit
condemn
flag
report
turn down
send back
say No to
object to
complain about
"""),
    lines("""
accept
tolerate
allow
permit
forgive
excuse
pardon
approve
pass
publish
wave through
let through
say Yes to
put up with
live with
"""),
)
_DEED_SAME = lines("""
{w} {f}
please {w} {f}
always {w} {f}
you must {w} {f}
we {w} {f}
our shop has to {w} {f}
customers {w} {f}
it is right to {w} {f}
do {w} {f}
""")
_DEED_TURNED = lines("""
do not {w} {f}
don't {w} {f}
never {w} {f}
you must not {w} {f}
we do not {w} {f}
we never {w} {f}
nobody will {w} {f}
there is no reason to {w} {f}
""")
_FAMILIES = (
    (_VERBS, _VERB_SAME, _VERB_TURNED),
    (_STATES, _STATE_SAME, _STATE_TURNED),
    (_VERDICTS, _VERDICT_SAME, _VERDICT_TURNED),
    (_DEEDS, _DEED_SAME, _DEED_TURNED),
)
# Constructions over (words that say "counts", words that say "does not").
_ONLY_COUNTS = (
    (_VERBS[0], "only {w} the {Xa}"),
    (_VERBS[0], "{w} only the {Xa}"),
    (_VERBS[0], "just {w} the {Xa}"),
    (_VERBS[0], "{w} nothing but the {Xa}"),
    (_VERBS[0], "{w} the {Xa} and nothing else"),
    (_VERBS[0], "{w} the {Xa} and no more"),
    (_VERBS[0], "all you {w} is the {Xa}"),
    (_VERBS[1], "{w} everything but the {Xa}"),
    (_VERBS[1], "{w} everything except the {Xa}"),
    (_STATES[0], "only the {Xa} {Xis} {w}"),
    (_STATES[0], "nothing but the {Xa} is {w}"),
    (_STATES[0], "the {Xa} alone {Xis} {w}"),
    (_STATES[1], "everything but the {Xa} is {w}"),
    (_STATES[1], "all but the {Xa} is {w}"),
    (_VERDICTS[0], "only {f} is {w}"),
    (_VERDICTS[0], "nothing but {f} is {w}"),
    (_VERDICTS[1], "everything but {f} is {w}"),
    (_DEEDS[0], "only {w} {f}"),
    (_DEEDS[0], "{w} {f} and nothing else"),
    (_DEEDS[1], "{w} everything but {f}"),
)
_ONLY_FREE = (
    (_VERBS[0], "{w} everything but the {Xa}"),
    (_VERBS[0], "{w} everything except the {Xa}"),
    (_VERBS[0], "{w} all attributes apart from the {Xa}"),
    (_VERBS[1], "only {w} the {Xa}"),
    (_VERBS[1], "{w} only the {Xa}"),
    (_VERBS[1], "{w} the {Xa} and nothing else"),
    (_VERBS[1], "{w} nothing but the {Xa}"),
    (_STATES[0], "everything but the {Xa} is {w}"),
    (_STATES[0], "all attributes except the {Xa} are {w}"),
    (_STATES[1], "only the {Xa} {Xis} {w}"),
    (_STATES[1], "nothing but the {Xa} is {w}"),
    (_VERDICTS[0], "everything but {f} is {w}"),
    (_VERDICTS[1], "only {f} is {w}"),
    (_VERDICTS[1], "nothing but {f} is {w}"),
    (_DEEDS[0], "{w} everything but {f}"),
    (_DEEDS[1], "only {w} {f}"),
    (_DEEDS[1], "{w} {f} and nothing else"),
)
_REST = ("the rest", "everything else", "all else", "the others", "all the rest")
_REST_VERB = ("{w} {r}", "please {w} {r}", "always {w} {r}", "we {w} {r}", "you must {w} {r}")
_REST_STATE = ("{r} is {w}", "we find {r} {w}", "{r} is always {w}", "for us {r} is {w}")


def side_clause(counts: bool, chance: Chance) -> str:
    """A clause which says that X counts (or does not), X being some of the attributes."""
    words, same, turned = _FAMILIES[int(chance() * len(_FAMILIES))]
    turn = chance() < 0.4
    word = pick(words[0 if counts != turn else 1], chance)
    return _with(pick(turned if turn else same, chance), word, chance)


def only_clause(counts: bool, chance: Chance) -> str:
    """A clause which says that X alone counts, or that X alone does not."""
    words, construction = pick(_ONLY_COUNTS if counts else _ONLY_FREE, chance)
    return _with(construction, pick(words, chance), chance)


def rest_clause(counts: bool, chance: Chance) -> str:
    """A clause which says that all the other attributes count, or do not."""
    words, constructions = ((_VERBS, _REST_VERB), (_STATES, _REST_STATE))[int(chance() * 2)]
    rest = pick(_REST, chance)
    clause = pick(constructions, chance).replace("{r}", rest)
    if rest == "the others":
        clause = clause.replace(" is ", " are ")
    return _with(clause, pick(words[0 if counts else 1], chance), chance)


def _with(construction: str, word: str, chance: Chance) -> str:
    faults: Sequence[str] = _FAULTS
    return construction.replace("{f}", pick(faults, chance)).replace("{w}", word)
