"""One video in: which frames are looked at, and what a model answers."""

import json
from pathlib import Path

from tvg.cli.shared import Arguments, Declare, add_dials, plan_of, say


def add(declare: Declare) -> None:
    parser = declare(frames, "say which frames of a video are looked at, and when", "video.mp4 --fps 2 --json")
    parser.add_argument("video", type=Path)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--json", action="store_true", help="one JSON object (the only form there is)")
    parser = declare(
        ground,
        "answer on any video",
        'video.mp4 "a person sits down" --model results/mini/stages/grpo-0123456789ab/model',
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("query")
    parser.add_argument("--model", required=True, help="a model folder, or owner/name@revision on the hub")
    parser.add_argument("--prompt", default="time_r1", help="a file of config/prompts")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    add_dials(parser)


def frames(a: Arguments) -> None:
    from tvg.video.decode import describe

    say(json.dumps(describe(a.video, a.fps)))


def ground(a: Arguments) -> None:
    import torch

    from tvg.config import read
    from tvg.evaluate.predict import ground
    from tvg.model.load import dtype_for, load, named
    from tvg.settings import Prompt

    plan = plan_of(a)
    prompt = read(Prompt, plan.folder / "prompts", a.prompt)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    runtime = plan.scale.runtime
    dtype = dtype_for(runtime.precision, device)
    policy = load(named(a.model), plan.store, device=device, dtype=dtype, policy=runtime.policy)
    answer = ground(policy, prompt, a.video, a.query, plan.scale.frames, a.max_new_tokens)
    if a.json:
        say(json.dumps(answer))
    elif answer["segment"] is None:
        say(f"no segment in the answer: {answer['completion']!r}")
    else:
        say("{:.2f} s to {:.2f} s".format(*answer["segment"]))
