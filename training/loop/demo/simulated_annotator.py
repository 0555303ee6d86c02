"""A program that judges tasks in place of a person, so that the demo loop can run unattended.

It is not a person and must never be taken for one: give it an account of kind "simulated". It sees what a
person sees, through the same REST API, and it answers from the text alone.

How it judges. Every completion gets a utility, the weighted sum of the parts below (`WEIGHTS`); then noise is
added, as in a Plackett-Luce model of ranking (for two completions: Bradley-Terry). With utility u and
temperature T the completion with the highest u + T * Gumbel noise comes first, so P(a before b) is
1 / (1 + exp(-(u_a - u_b) / T)). Two neighbours in the ranking whose utilities, without noise, differ by less
than `TIE_MARGIN` are tied. The noise depends on the annotator's seed, the task and the text only: the same
annotator judges the same task alike, whatever the order shown. At the default temperature two annotators agree
on 82 % of the pairs (n = 516, ties included) of four completions by the demo's base model.

The utility follows guideline.md: answer the question, briefly, kindly, with a next step.

Run: PREFLOOP_TOKEN=... python -m training.loop.demo.simulated_annotator \
         --url http://127.0.0.1:8000 --project larkfell --count 50 --seed 1
"""

import argparse
import hashlib
import math
import os
import random
import re
import sys
from collections.abc import Callable
from typing import Any

from training.client import ApiError, Client, ConnectionFailed

TEMPERATURE = 0.5
TIE_MARGIN = 0.15

WEIGHTS = {
    "answers": 1.6,
    "fitting_length": 0.8,
    "complete": 1.4,
    "courteous": 1.2,
    "next_step": 1.4,
    "copying": -1.5,
    "repetition": -2.0,
    "boilerplate": -1.0,
    "out_of_role": -1.5,
    "placeholder": -0.8,
    "invented_contact": -0.5,
}

# Words that say nothing about the topic of a message.
STOP_WORDS = frozenset(
    re.findall(
        r"[a-z]+",
        """
        a about after again all already also am an and any are as at be because been before but by can
        could day did do does done down each else even ever every for from get give go got had has have
        he hello help her hi him his how i if in instead into is it its just know larkfell let like look
        make may me mine more most much must my need never new no not now of off on once one only or
        order other our out over own please really say see send sent shall she should so some sorry
        still such take tell than thank thanks that the their them then there these they thing this
        those time to today too two until up us use very want was way we well were what when where which
        while who why will with without would yes yesterday yet you your
        """,
    )
)

# Words of one family count as one topic: a reply about "the refund" answers "where is my money".
TOPICS = (
    "money refund refunded bank card pay paid payment charge charged credit price cost fee discount voucher code",
    "parcel delivery deliver delivered courier driver tracking track ship shipped shipping package arrive arrived "
    "warehouse dispatch dispatched transit box address",
    "return returned returns label exchange swap exchanged back",
    "broken damaged crack cracked dent dented chip chipped scratch faulty leak leaking leaks snapped rust pieces "
    "replacement replace repair repaired photo photos",
    "size sizes sizing fit fits large medium small length tight wide wider measure measurements",
    "account password login log email newsletter unsubscribe settings username profile",
    "warranty guarantee claim covered cover spare parts repair receipt",
    "cancel cancelled cancellation cancelling stop pause subscription",
    "complaint apology apologise apologize manager feedback unacceptable frustrating disappointing",
    "love lovely brilliant nice nicer glad pleased review kind delighted",
)

COURTESY = {
    "greeting": r"^(hello|hi|dear|good (morning|day|afternoon))\b",
    "thanks": r"\b(thank you|thanks|appreciate|grateful)\b",
    "apology": r"\b(sorry|apologi[sz]e|apologies|regret)\b",
    "offer": r"\b(happy to|glad to|pleased to|here to help|of course|certainly|you're welcome)\b",
    "please": r"\bplease\b",
}

NEXT_STEP = {
    "asks the customer to do something": r"\b(please|can you|could you|would you|you can|you could|you may|you'll need to|"
    r"you should|simply|just)\s+(also\s+|then\s+)?(send|reply|contact|check|let us|let me|tell|provide|share|visit|go to|"
    r"try|email|e-mail|call|write|give|keep|follow|choose|select|click|order|return|reach|request|update|confirm|"
    r"measure|use|find|log|ask|wait|look|add|bring|submit|exchange|put|attach|include|describe|get in touch)\b",
    "says what the shop will do": r"\b(we will|we'll|we can|we are going to|i will|i'll|i can|let me)\s+(also\s+|then\s+|be able to\s+|"
    r"be happy to\s+|gladly\s+)?(send|refund|replace|check|look|contact|get back|arrange|offer|exchange|cancel|update|"
    r"change|email|e-mail|call|ship|deliver|investigate|find|process|issue|make sure|pass|help|assist|provide|add|fix|"
    r"resolve|follow|confirm|track|repair|return)\b",
    "invites an answer": r"\b(let (us|me) know|feel free to|get in touch|reach out|contact (us|our|me))\b",
}

# One offer of help is kind; three in a row say nothing.
BOILERPLATE = (
    r"\b(here to (help|assist)|(happy|glad|pleased) to|hesitate|feel free|(any|other|further) (other )?questions|"
    r"further assistance|(help|assist) you with|do (my|our) best|anything else)\b"
)

OUT_OF_ROLE = (
    r"\b(an? |helpful )?(ai|language model|chatbot|bot|virtual assistant|smollm|hugging face)\b",
    r"\bas an assistant\b|\bi'?m just a\b|\bassistant for\b",
    # Only the customer talks like this.
    r"\bi (ordered|bought|purchased|received|paid|returned|sent back) (a|an|the|my|two|it|this)\b",
    r"\bmy (order|parcel|refund|purchase|delivery|tent|boots|package|account|money|husband|wife|son|daughter)\b",
    r"\bsorry for your loss\b",
    # Stage directions, drafts and reports in place of a reply.
    r"[*(](smil|laugh|smirk|nod|sigh|chuckl|takes a|larkfell,)|\bonce upon a time\b",
    r"\bi'm (elara|jack|alex|sarah|emily)\b",
    r"^(here('s| is) (a|an|the|your|my) (possible |sample |draft |revised )?(reply|response|answer|message|email|letter)|subject:)",
    r"\bthe (customer|user)('s)? (is|was|has|says|said|wants|asked|message)\b",
)

PRAISE = r"\b(thank you|my thanks|brilliant|love|nicer|best customer service|made my day|where it came from)\b"
TROUBLE = r"\b(not|never|nobody|nothing|broken|wrong|missing|worst|apology|cancel)\b|n't\b"

PLACEHOLDER = r"\[[A-Za-z][^\]\n]{0,40}\](?!\()|<[a-z ]+>|\{[a-z_ ]+\}|\bX{3,}\b|_{3,}"
INVENTED_CONTACT = r"https?://|www\.|\.com\b|\S+@\S+\.\S+|\b1-8\d\d-|\+?\(?\d{3}\)?[ -]\d{3}[ -]\d{4}\b|\b555-"


def rank(
    completions: dict[str, str],
    *,
    customer: str,
    annotator_seed: int,
    task_id: str,
    temperature: float = TEMPERATURE,
    ties: bool = True,
) -> list[list[str]]:
    """Rank the texts of `completions` (by key), best first, ties in one inner list.

    `customer` is what the customer wrote. The result depends on the texts, not on their keys' order. Without
    `ties`, what is almost equal is ranked by the noise.
    """
    utilities = {key: utility(text, customer) for key, text in completions.items()}
    noisy = {
        key: utilities[key] + temperature * _gumbel_noise(annotator_seed, task_id, text)
        for key, text in completions.items()
    }
    groups: list[list[str]] = []
    for key in sorted(completions, key=lambda key: (-noisy[key], completions[key])):
        if ties and groups and abs(utilities[groups[-1][0]] - utilities[key]) < TIE_MARGIN:
            groups[-1].append(key)
        else:
            groups.append([key])
    return groups


def win(
    first: str,
    second: str,
    *,
    customer: str,
    annotator_seed: int,
    task_id: str,
    temperature: float = TEMPERATURE,
) -> float:
    """1 where the simulated annotator prefers `first`, 0 where it prefers `second`, one half for a tie."""
    groups = rank(
        {"first": first, "second": second},
        customer=customer,
        annotator_seed=annotator_seed,
        task_id=task_id,
        temperature=temperature,
    )
    return 0.5 if len(groups) == 1 else float(groups[0] == ["first"])


def utility(text: str, customer: str) -> float:
    """How good a reply `text` is to what `customer` wrote, without noise. Higher is better; no fixed range."""
    return sum(WEIGHTS[part] * value for part, value in parts(text, customer).items())


def parts(text: str, customer: str) -> dict[str, float]:
    """The parts of the utility, each from 0 (absent) to 1 (fully there)."""
    words = _words(text)
    lower = text.lower().replace("’", "'")
    shown = {kind for kind, pattern in COURTESY.items() if re.search(pattern, lower)}
    if _is_praise(customer):
        shown.discard("apology")  # there is nothing to be sorry for
    steps = sum(bool(re.search(pattern, lower)) for pattern in NEXT_STEP.values())
    lapses = sum(bool(re.search(pattern, lower)) for pattern in OUT_OF_ROLE)
    return {
        "answers": _topic_overlap(words, _words(customer)),
        "fitting_length": _fitting_length(len(words)),
        "complete": float(bool(re.search(r"[.!?][\"')*]*$", text.strip())) and _lists_are_finished(text)),
        "courteous": min(1.0, len(shown) / 2),
        "next_step": min(1.0, steps / 2) if steps != 1 else 0.7,
        "copying": _copied_share(words, _words(customer)),
        "repetition": _repeated_share(words),
        "boilerplate": min(1.0, max(0, len(re.findall(BOILERPLATE, lower)) - 1) / 2),
        "out_of_role": min(2, lapses) / 2,
        "placeholder": float(bool(re.search(PLACEHOLDER, text))),
        "invented_contact": float(bool(re.search(INVENTED_CONTACT, lower))),
    }


def _topic_overlap(reply: list[str], customer: list[str]) -> float:
    """How much of what the customer talks about comes back in the reply: three content words suffice."""
    asked = {_stem(word) for word in customer} - STOP_WORDS
    if not asked:
        return 0.5
    said = {_stem(word) for word in reply} - STOP_WORDS
    found = len(asked & said)
    for topic in TOPICS:
        family = {_stem(word) for word in topic.split()}
        if family & asked and family & (said - asked):
            found += 1
    return min(1.0, found / min(3, len(asked) + 1))


def _is_praise(customer: str) -> bool:
    return bool(re.search(PRAISE, customer.lower())) and not re.search(TROUBLE, customer.lower())


def _fitting_length(n_words: int) -> float:
    """1 between 18 and 45 words, falling to 0 at 6 words and at 90."""
    if n_words < 18:
        return max(0.0, (n_words - 6) / 12)
    return max(0.0, min(1.0, (90 - n_words) / 45))


def _lists_are_finished(text: str) -> bool:
    """Whether the last line is more than an opened list item, such as "2." or "-"."""
    return not re.fullmatch(r"\s*(\d+[.)]|[-*])\s*\S{0,3}", text.strip().splitlines()[-1]) if text.strip() else False


def _copied_share(reply: list[str], customer: list[str]) -> float:
    """Share of the reply's runs of four words that the customer wrote."""
    runs = _runs(reply, 4)
    theirs = set(_runs(customer, 4))
    return sum(run in theirs for run in runs) / len(runs) if runs else 0.0


def _repeated_share(words: list[str]) -> float:
    """Share of the runs of three words that have occurred before."""
    runs = _runs(words, 3)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:[-'][a-z0-9]+)*", text.lower().replace("’", "'"))


def _stem(word: str) -> str:
    """Cut the commonest English endings; crude, and enough to match "boots" with "boot"."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending).removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word


def _gumbel_noise(annotator_seed: int, task_id: str, text: str) -> float:
    return -math.log(-math.log(_random(annotator_seed, task_id, text).uniform(1e-12, 1 - 1e-12)))


def _random(*parts: object) -> random.Random:
    """A generator that depends on `parts` alone, on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return random.Random(digest)


def judge(task: dict[str, Any], *, annotator_seed: int, temperature: float = TEMPERATURE) -> dict[str, Any]:
    """Make the judgement of one task of the REST API, with the seconds a person might have needed."""
    completions = {completion["key"]: completion["content"] for completion in task["completions"]}
    customer = "\n".join(message["content"] for message in task["prompt"] if message["role"] == "user")
    ranking = rank(
        completions,
        customer=customer,
        annotator_seed=annotator_seed,
        task_id=task["id"],
        temperature=temperature,
        ties=task["form"].get("ties", True),
    )
    n_words = len(_words(customer)) + sum(len(_words(text)) for text in completions.values())
    # Reading at 4 words a second, then some time to decide; people vary by a factor of about 1.4.
    spread = _random(annotator_seed, task["id"], "seconds").lognormvariate(0, 0.35)
    return {"ranking": ranking, "seconds": round((n_words / 4 + 2 * len(completions)) * spread, 1)}


def annotate(
    client: Client,
    project: str,
    *,
    annotator_seed: int,
    count: int | None = None,
    temperature: float = TEMPERATURE,
    report: Callable[[int], None] = lambda done: None,
) -> int:
    """Judge tasks of `project` until none is left for this account or `count` are done. Returns how many."""
    done = 0
    lease = client.lease(project) if count != 0 else None
    while lease is not None:
        judgement = judge(lease["task"], annotator_seed=annotator_seed, temperature=temperature)
        wants_more = count is None or done + 1 < count
        answer = client.submit(lease["id"], judgement, next=wants_more)
        done += 1
        report(done)
        lease = answer.get("next_lease") if wants_more else None
    return done


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Judge tasks with a simulated annotator. Its token is read from PREFLOOP_TOKEN.",
        epilog="Example: PREFLOOP_TOKEN=... python -m training.loop.demo.simulated_annotator "
        "--url http://127.0.0.1:8000 --project larkfell --count 50 --seed 1",
    )
    parser.add_argument("--url", required=True, help="address of the site")
    parser.add_argument("--project", required=True, help="slug of the project")
    parser.add_argument("--count", type=int, help="stop after so many judgements (default: when no task is left)")
    parser.add_argument("--seed", type=int, default=0, help="which simulated person this is")
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="noise; 0 always follows the utility")
    options = parser.parse_args(arguments)
    token = os.environ.get("PREFLOOP_TOKEN")
    if not token:
        print("Set PREFLOOP_TOKEN to the token of a simulated annotator's account.", file=sys.stderr)
        return 2

    def report(done: int) -> None:
        if done % 10 == 0 or done == options.count:
            print(f"simulated annotator {options.seed}: {done} judgements", flush=True)

    try:
        with Client(options.url, token) as client:
            done = annotate(
                client,
                options.project,
                annotator_seed=options.seed,
                count=options.count,
                temperature=options.temperature,
                report=report,
            )
    except (ApiError, ConnectionFailed) as error:
        print(f"simulated annotator {options.seed}: {error}", file=sys.stderr)
        return 1
    print(f"simulated annotator {options.seed}: finished with {done} judgements")
    return 0


if __name__ == "__main__":
    sys.exit(main())
