"""What is relied on inside the trainers' libraries: an upgrade that changes it fails here, not in silence."""

import inspect

import pytest

import tvg.train  # noqa: F401 - mends torchvision before transformers and trl look for it

# isort: split
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer, SFTTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

HOOKS = {
    "_tokenize_prompts": ["self", "prompts"],
    "_generate_single_turn": [
        "self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images",
    ],
    "_generate": ["self", "prompts"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_prepare_inputs": ["self", "generation_batch"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_compute_loss": ["self", "model", "inputs"],
}  # fmt: skip
SCORING = ["self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy"]


def parameters(method) -> list[str]:
    return list(inspect.signature(method).parameters)


@pytest.mark.parametrize("hook", HOOKS)
def test_grpo_hook_signatures(hook):
    assert parameters(getattr(GRPOTrainer, hook)) == HOOKS[hook]


def test_scoring_hook_signature_and_returned_triple():
    assert parameters(GRPOTrainer._get_per_token_logps_and_entropies)[:7] == SCORING
    source = inspect.getsource(GRPOTrainer._get_per_token_logps_and_entropies)
    assert "return logps, entropies, aux_loss" in source


@pytest.mark.parametrize(
    ("method", "relied_on"),
    [
        ("_generate", "self._tokenize_prompts(prompts)"),
        ("_generate", "self._generate_single_turn("),
        ("_generate_and_score_completions", "self._generate(prompts)"),
        ("_generate_and_score_completions", "self._calculate_rewards(inputs, prompts, completions, completion_ids"),
        ("_generate_and_score_completions", "self.args.gradient_accumulation_steps % generate_every != 0"),
        ("_generate_and_score_completions", "if self.beta != 0.0:\n                if self.ref_model is not None:"),
        ("_generate_and_score_completions", "/ (std_rewards + 1e-4)"),
        ("_prepare_inputs", "self._buffered_inputs[self._step % self.args.steps_per_generation]"),
        ("_compute_loss", "self.beta * per_token_kl"),
        ("_compute_loss", 'inputs["num_items_in_batch"]'),
        ("__init__", "self.ref_model = None"),
    ],
)  # fmt: skip
def test_grpo_bodies_still_say_what_we_build_on(method, relied_on):
    assert relied_on in inspect.getsource(getattr(GRPOTrainer, method))


def test_checkpoint_folder_comes_from_the_hook_that_we_override():
    assert "self._get_output_dir(trial=trial)" in inspect.getsource(Trainer._save_checkpoint)
    assert parameters(Trainer._save_checkpoint) == ["self", "model", "trial"]
    assert parameters(Trainer._get_output_dir) == ["self", "trial"]


def test_weights_of_a_checkpoint_go_through_the_hooks_that_we_override():
    assert parameters(Trainer._save) == ["self", "output_dir", "state_dict"]
    assert parameters(Trainer._load_from_checkpoint) == ["self", "resume_from_checkpoint", "model"]
    assert "self._save(output_dir)" in inspect.getsource(Trainer.save_model)
    assert "self._load_from_checkpoint(resume_from_checkpoint)" in inspect.getsource(Trainer.train)


def test_sft_loss_hook_signature():
    assert parameters(SFTTrainer.compute_loss) == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert parameters(Trainer._get_train_sampler) == ["self", "train_dataset"]
    assert parameters(Trainer.get_batch_samples) == ["self", "epoch_iterator", "num_batches", "device"]


def test_every_grpo_argument_that_we_pin_exists():
    pinned = {
        "steps_per_generation", "num_iterations", "num_generations", "max_completion_length", "temperature", "top_p",
        "epsilon", "delta", "beta", "loss_type", "scale_rewards", "reward_weights", "multi_objective_aggregation",
        "importance_sampling_level", "mask_truncated_completions", "top_entropy_quantile", "disable_dropout",
        "shuffle_dataset", "use_vllm", "log_completions",
    }  # fmt: skip
    assert pinned <= set(GRPOConfig.__dataclass_fields__)


def test_rows_are_shuffled_across_groups_and_split_by_first_dimension():
    import torch

    torch.manual_seed(0)
    rows = {"position": torch.arange(8) // 4, "total": torch.tensor(3)}
    shuffled = shuffle_sequence_dict(rows)
    assert shuffled["position"].tolist() != rows["position"].tolist()
    passes = split_tensor_dict(shuffled, 2)
    assert [len(p["position"]) for p in passes] == [4, 4]
    assert passes[0]["total"].ndim == 0
