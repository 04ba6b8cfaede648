"""Inversion prompts of one's own: a stage may ask otherwise than its evaluation, and a task may have its own format."""

import shutil
from dataclasses import replace

import pytest

from tests.conftest import REPO
from tests.training import PROMPT, make_store
from tests.unit.test_predict import RUNTIME, evaluation
from tvg.config import Config, read_prompts
from tvg.errors import TvgError
from tvg.evaluate import predict as predicting
from tvg.evaluate.predictions import read_predictions
from tvg.inversion import annotate
from tvg.inversion.verbs import extractor
from tvg.model.shared import SharedPolicy
from tvg.prompts import render, target
from tvg.resolve import Resolver
from tvg.rewards import Rollout, score
from tvg.sample import INVERSION_TASKS, Sample
from tvg.segment import Segment
from tvg.settings import AnswerContract
from tvg.spec import canonical

STANDIN = extractor("standin")
DOOR = Sample("s", "v.mp4", 30.0, "Person opens the door and sits.", (Segment(3, 9),), task="complete_verb")


def resolved(arm, scale="3b", folder=REPO / "config"):
    return Resolver(Config(scale=scale), folder).run("invert4tvg", arm, 0)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(REPO / "config", tmp_path / "config")
    return tmp_path / "config"


def test_the_released_arm_trains_as_its_code_does():
    grpo = resolved("released_code").stages["grpo"]
    assert (grpo.tasks, grpo.draw) == ({"complete_verb": 0.166, "ground": 0.834}, "static")
    assert (grpo.learning_rate, grpo.beta, grpo.epsilon, grpo.loss_type) == (1e-6, 0.04, 0.2, "bnpo")
    assert (grpo.epochs, grpo.num_generations, grpo.temperature, grpo.max_completion_tokens) == (2, 8, 1.0, 1024)
    assert {name: given.weight for name, given in grpo.rewards.items()} == {"format": 1, "tiou": 1, "verbs": 1}
    assert grpo.rewards["verbs"].match == "superset"
    assert grpo.prompt.answer.format == "fmt_ta" and grpo.prompt.answer.formats == {"complete_verb": "fmt_answer"}


def test_the_released_arm_is_evaluated_as_every_arm():
    """Else its columns VC, AR and VD could not stand beside the others'."""
    [own], [main] = (resolved(arm).evaluations.values() for arm in ("released_code", "main"))
    assert own.prompt == main.prompt and set(own.settings.tasks) == {"ground", *INVERSION_TASKS}
    assert "{masked}" in own.prompt.texts["complete_verb"] and own.prompt.answer.formats == {}


def test_the_released_question_and_the_answer_that_it_wants():
    spec, [done] = resolved("released_code").stages["grpo"], annotate([DOOR], STANDIN)
    [message] = render(spec.prompt, done)
    question = message["content"]
    assert '"Person the door and sits."' in question and not any(word in question for word in ("opens", "[]", "think"))
    taught = target(done, spec.prompt.answer)
    assert taught == "<answer>Person opens the door and sits.</answer>"
    assert score(spec.rewards, Rollout(taught, done), spec.prompt.answer, STANDIN) == {
        "format": 1.0, "tiou": None, "verbs": 1.0,
    }  # fmt: skip
    assert target(done.with_task("ground"), spec.prompt.answer).startswith("<think>")


def test_words_in_braces_of_a_query_stay_as_they_are():
    [done] = annotate([replace(DOOR, query="person opens a {query}")], STANDIN)
    assert '"person [] a {query}"' in render(resolved("main").stages["grpo"].prompt, done)[0]["content"]


def read(folder, answer, prompt="time_r1"):
    """The grounding prompt with the inversion tasks of a file with this contract."""
    text = (REPO / "config" / "prompts" / "inversion.yaml").read_text().partition("answer:")[0]
    (folder / "prompts" / "own.yaml").write_text(text + (f"answer: {answer}\n" if answer else ""))
    return read_prompts(folder / "prompts", prompt, "own").answer


@pytest.mark.parametrize(
    ("answer", "formats"),
    [
        (None, {}),  # unsaid, the grounding prompt's holds
        ("{reward: ans_taro}", {}),
        ("{format: fmt_answer}", dict.fromkeys(INVERSION_TASKS, "fmt_answer")),
        ("{formats: {describe: fmt_answer}}", {"describe": "fmt_answer"}),
        ("{format: fmt_answer, formats: {describe: fmt_ta}}",
         {"complete_verb": "fmt_answer", "recognise_action": "fmt_answer", "describe": "fmt_ta"}),
    ],
)  # fmt: skip
def test_the_format_that_an_inversion_file_states_is_its_tasks(folder, answer, formats):
    contract = read(folder, answer)
    assert (contract.format, contract.reward, contract.formats) == ("fmt_ta", "ans_last", formats)
    for task in ("ground", *INVERSION_TASKS):
        assert contract.format_of(task) == formats.get(task, "fmt_ta")


def test_an_unknown_format_of_a_task_is_refused(folder):
    with pytest.raises(TvgError, match="no such format check") as error:
        read(folder, "{formats: {describe: fmt_answr}}")
    assert "answer.formats.describe" in str(error.value) and "did you mean 'fmt_answer'" in str(error.value)


def test_a_format_that_is_the_prompts_anyway_is_in_no_spec(folder):
    """So that a file which says what holds already makes no other training."""
    before = canonical(resolved("main", folder=folder).stages["grpo"])
    path = folder / "prompts" / "inversion.yaml"
    path.write_text(path.read_text().replace("answer: {format: fmt_ta}\n", ""))
    assert "fmt_ta" not in path.read_text()
    assert canonical(resolved("main", folder=folder).stages["grpo"]) == before


def test_predictions_are_checked_by_their_tasks_format(tmp_path, monkeypatch):
    contract = AnswerContract(formats={"complete_verb": "fmt_answer"})
    spec = evaluation(prompt=PROMPT.model_copy(update={"answer": contract}))
    monkeypatch.setattr(SharedPolicy, "decode", lambda *_: "<answer>runs</answer>")
    rows = read_predictions(predicting.predict(spec, make_store(tmp_path), RUNTIME, "cpu"))
    assert {task: {row["format"] for row in rows if row["task"] == task} for task in ("ground", *INVERSION_TASKS)} == {
        "ground": {False}, "complete_verb": {True}, "recognise_action": {False}, "describe": {False},
    }  # fmt: skip
