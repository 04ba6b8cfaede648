"""Does the answer to an inversion task name the query's verbs? (Invert4TVG, systems.md 2.5; section 8, row 10)"""

import re
from collections.abc import Set as AbstractSet

from tvg.errors import TvgError
from tvg.inversion import action_recognition, verb_completion, video_description
from tvg.inversion.verbs import Extractor, sampler_verbs
from tvg.parse import last_answer
from tvg.rewards.rollout import Rollout
from tvg.rewards.similarity import meaning, similarity
from tvg.sample import INVERSION_TASKS
from tvg.settings import AnswerContract, RewardSettings

LIST = re.compile(r"\s*(?:[,;/&\n]|\band\b|\bthen\b)\s*", re.IGNORECASE)
SINGLE = re.compile(r"\W*(\w+(?:['’-]\w+)*)\W*")


def verbs_reward(
    rollout: Rollout, settings: RewardSettings, _: AnswerContract, extractor: Extractor | None
) -> float | None:
    """Does the answer name the query's verbs: 1.0 or 0.0 by the task's rule. `match: synonym`: synonyms are one verb;
    `superset`: 1.0 where every true verb is named, whatever the task, more are free; `cosine`: how nearly, in [0, 1].

    Read is the body of the last <answer>. A query without a verb has no right answer: it scores 0; with `superset`,
    the released code's rule, an answer without a verb is right (systems.md 2.5).
    """
    sample = rollout.sample
    if sample.task not in INVERSION_TASKS:
        return None
    if extractor is None or sample.verbs is None:
        raise TvgError(
            f"reward verbs, sample {sample.id}",
            "no verbs to compare with",
            got="a sample without them",
            expected="samples with verbs, and their back-end",
            hint="set `verbs: spacy_sm` or `standin` in the scale",
        )
    body, truth = last_answer(rollout.completion), frozenset(sample.verbs)
    if body is None:
        return 0.0
    predicted = named(body, extractor)
    if settings.match == "superset":
        return float(verb_completion.at_least(predicted, truth))
    if not truth or (sample.task == "recognise_action" and len(predicted) > 1):
        return 0.0
    any_of = sample.task == "describe" and settings.describe == "any"
    if settings.match == "cosine":
        return nearness(predicted, truth, any_of)
    if settings.match == "synonym":
        predicted, truth = frozenset(map(meaning, predicted)), frozenset(map(meaning, truth))
    match sample.task:
        case "complete_verb":
            return float(verb_completion.right(predicted, truth))
        case "recognise_action":
            return float(action_recognition.right(predicted, truth))
        case _:
            return float(video_description.right(predicted, truth, any_of))


def named(answer: str, extractor: Extractor) -> frozenset[str]:
    """Lemmas of the verbs that an answer names: of a bare word or a list of words each, of a sentence its verbs.

    A bare word is a verb because one was asked for, whatever a tagger would call it.
    """
    words = [SINGLE.fullmatch(item) for item in LIST.split(answer.strip(" \n.")) if item]
    if words and all(words):
        return frozenset(extractor.lemma(word[1].lower()) for word in words)
    return frozenset(verb.lemma for verb in sampler_verbs(extractor(answer)))


def nearness(predicted: AbstractSet[str], truth: AbstractSet[str], any_of: bool = False) -> float:
    """Mean over the true verbs (with `any_of` the best) of the nearest predicted verb's similarity, in [0, 1]."""
    nearest = [max((similarity(verb, true) for verb in predicted), default=0.0) for true in sorted(truth)]
    return max(nearest) if any_of else sum(nearest) / len(nearest)
