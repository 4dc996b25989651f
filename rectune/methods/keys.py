"""What becomes of each key of a training that a recipe may set: read by the library, by us, or refused with the reason."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

from rectune.methods.choosing import Choosing
from rectune.recipe.library import ABOVE_0, FROM_0, FROM_1, SHARE, Range
from rectune.runtime.near import near, shown

# Key -> what rectune makes of it; most of these the library reads, too.
OURS = {
    "ranked_rows": "validation rows that are ranked or answered at each evaluation",
    "early_stopping_patience": "stop after so many evaluations without a better `metric_for_best_model`",
    "target_head": "logits only where a label is; same loss, less memory; the default off a GPU, but for a loss on all tokens in float32",
    "negatives": "where rejected items come from: `random`, `popular`, `ranked` (the model's own lists as the stage begins), `candidates` or `shown`",
    "negatives_power": "`popular`: the power of an item's count with which it is drawn",
    "negatives_each": "items that are rejected beside each target",
    "rewards": "what a rolled-out item is worth: `hit`, `rank`, `similarity`, `prior`, or a function of your own",
    "rollouts": "how a group is made: `beams`, `independent` or `without_replacement`",
    "log_probs": "whose log-probabilities the loss takes: `catalogue` or `vocabulary`",
    "hints": "most codes of its target that a group without it is given",
    "importance": "items that were drawn `without_replacement` are weighted",
    "max_length": "most tokens of an example; the oldest history goes first, no target is cut",
    "batch_tokens": "most tokens of a batch, padding included, in place of a number of examples",
    "packing": "examples of a batch share rows, each seeing itself alone; a batch is of as many examples as without it",
    "completion_only_loss": "`false`: the loss is on prompt and completion, which `examples: windows` needs",
    "train_sampling_strategy": "`group_by_length` goes by the lengths of each epoch's own examples",
    "seed": "the recipe's `seed` where it is not given",
    "use_cpu": "from `model.device` where it is not given",
    "bf16": "off on a CPU where it is not given",
    "save_total_limit": "whole checkpoints that are kept, 2 where it is not given; an older one goes once a newer one is whole",
    "save_minutes": "where `save_strategy` is `no`, a checkpoint every so many minutes to go on from (0: none); the result is the same with and without",
    "metric_for_best_model": "must be a metric that an evaluation of this run gives",
    "load_best_model_at_end": "needs evaluations and saves at the same steps",
    "disable_tqdm": "no bar and no lines of progress",
    "disable_dropout": "preference tuning and reinforcement leave dropout out where it is not given",
    "fsdp": "only with `sft`, in its second version, and not in 4 or 8 bit",
    "deepspeed": "only with `sft`, where no adapter and no new token is trained",
    "activation_checkpointing": "less memory, same result; a stopped training may go on with another value",
    "activation_checkpointing_kwargs": "goes with it",
    "gradient_checkpointing": "the library's older name of `activation_checkpointing`, which counts where both are given",
    "gradient_checkpointing_kwargs": "goes with it",
    "report_to": "trackers of the library; `none` where it is not given. The package must be installed",
}
# Reader -> keys that go to it as they are.
PASSED = {
    "Trainer: how long": "num_train_epochs max_steps",
    "Trainer: batches": "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps average_tokens_across_devices "
    "dataloader_drop_last eval_accumulation_steps eval_do_concat_batches eval_use_gather_object prediction_loss_only",
    "Trainer: optimiser": "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 "
    "adam_epsilon optim_target_modules max_grad_norm",
    "Trainer: loss": "label_smoothing_factor neftune_noise_alpha",
    "Trainer: numbers and speed": "fp16 bf16_full_eval fp16_full_eval tf32 torch_compile torch_compile_backend torch_compile_mode use_liger_kernel "
    "liger_kernel_config use_cache torch_empty_cache_steps full_determinism data_seed",
    "Trainer: when to log, evaluate and save": "logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter "
    "include_num_input_tokens_seen log_level log_level_replica eval_strategy eval_steps eval_delay eval_on_start save_strategy save_steps "
    "save_on_each_node enable_jit_checkpoint greater_is_better",
    "the tracker that `report_to` names": "run_name project trackio_space_id trackio_bucket_id trackio_static_space_id",
    "Trainer: memory and errors": "skip_memory_metrics debug",
    "Accelerate and torch": "accelerator_config parallelism_config dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
    "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order ddp_find_unused_parameters ddp_bucket_cap_mb "
    "ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp_config",
    "TRL's SFTTrainer": "router_aux_loss_coef padding_free pad_to_multiple_of loss_type activation_offloading pad_token",
    "TRL's DPOTrainer": "beta loss_weights label_smoothing ld_alpha f_divergence_type f_alpha_divergence_coef use_weighting discopop_tau",
    "TRL's GRPOTrainer": "num_generations generation_batch_size steps_per_generation num_iterations temperature reward_weights scale_rewards "
    "multi_objective_aggregation epsilon epsilon_high delta importance_sampling_level off_policy_mask_threshold use_bias_correction_kl "
    "top_entropy_quantile entropy_coef use_adaptive_entropy entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target "
    "sapo_temperature_pos sapo_temperature_neg vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg",
}  # fmt: skip
_HUB = "the Trainer sends nothing to the Hub: `rectune push`, or `rectune train --push USER/REPO`, does"
_ROWS = "rectune makes the examples itself, from tasks and templates"
_BASE = "rectune loads the base itself; see the section `model`"
_RUN = "the run does that by itself"
# Key -> why it is refused where a recipe gives another value than the library's default.
REFUSED = {
    "save_only_model": "a checkpoint without optimiser and random state is no place to go on from: a training that was stopped would end with "
    "another model. Take the weights from the run folder",
    "packing_strategy": "`packing` fills the rows of a batch with its examples, the long ones first",
    "eval_packing": "`packing` is for evaluations, too",
    **dict.fromkeys(
        ("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"), _HUB
    ),
    **dict.fromkeys(
        ("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "remove_unused_columns", "label_names", "length_column_name"), _ROWS
    ),
    "shuffle_dataset": "examples are drawn in a new order in each epoch anyway; `train_sampling_strategy` says otherwise",
    "truncation_mode": "`max_length` leaves out the oldest history first, and never a target",
    "assistant_only_loss": "the loss is on what a template's `completion` writes",
    "chat_template_path": "prompts are made by templates (`tasks`), and the frame around them by the base's own chat template",
    "eos_token": "the end of an example is the base's own; a template says `{% set end = false %}` where there is none",
    "model_init_kwargs": _BASE,
    "trust_remote_code": "a base's own code is never run; use a base that transformers knows",
    **dict.fromkeys(
        ("precompute_ref_log_probs", "precompute_ref_batch_size", "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
        "the reference is the model as the stage began: its trained weights are kept beside it",
    ),
    **dict.fromkeys(
        (
            "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "cache_implementation", "max_completion_length",
            "mask_truncated_completions", "num_generations_eval", "ds3_gather_for_generation", "use_transformers_continuous_batching",
            "transformers_continuous_batching_config", "use_transformers_paged", "use_vllm", "vllm_mode", "vllm_model_impl",
            "vllm_enable_sleep_mode", "vllm_structured_outputs_regex", "vllm_server_base_url", "vllm_server_host", "vllm_server_port",
            "vllm_server_timeout", "vllm_group_port", "vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size",
            "vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max",
            "vllm_importance_sampling_clip_min", "vllm_importance_sampling_cap",
        ),
        "items are rolled out by the search under the trie, not by `generate` or a server",
    ),
    **dict.fromkeys(
        (
            "chat_template_kwargs", "max_tool_calling_iterations", "log_completions", "log_completions_hub_repo", "log_multimodal",
            "log_unique_prompts", "num_completions_to_print",
        ),
        "what is rolled out are items, and no text",
    ),
    "cast_lm_head_to_fp32": "the head is multiplied as in every stage, and its logits are made float32 then",
    "output_dir": "checkpoints lie in the run folder, which is the recipe's `output_dir`",
    "resume_from_checkpoint": "the same command goes on from the last whole checkpoint by itself",
    "ignore_data_skip": "a training that was stopped goes on with the examples that it had not seen",
    "restore_callback_states_from_checkpoint": "what rectune counts is taken up from its own files",
    "auto_find_batch_size": "the batch would be another one than the recipe says, in silence; where memory runs out the error names keys to change",
    "include_for_metrics": "metrics are those of the ranked task",
    "batch_eval_metrics": "metrics are those of the ranked task",
    "do_train": _RUN, "do_eval": _RUN, "do_predict": _RUN,
    "local_rank": "the launcher says it (`accelerate launch -m rectune train …`)",
}  # fmt: skip

MAX_STEPS = Range(1, also=-1)
RANGES: dict[str, Range] = {
    "max_steps": MAX_STEPS,
    "learning_rate": Range(0, below=100),
    "num_train_epochs": Range(0, above=True, below=1e6),
    **dict.fromkeys(("weight_decay", "max_grad_norm", "warmup_steps", "eval_delay", "dataloader_num_workers", "seed"), FROM_0),
    **dict.fromkeys(("data_seed", "neftune_noise_alpha", "router_aux_loss_coef"), FROM_0),
    "save_minutes": FROM_0,
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps", "adam_epsilon", "ddp_timeout"), ABOVE_0),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_length", "batch_tokens"), FROM_1),
    "beta": ABOVE_0,
    "negatives_power": FROM_0,
    **dict.fromkeys(("temperature", "epsilon"), ABOVE_0),
    "num_generations": Range(2),
    "top_entropy_quantile": Range(0, below=1, also=1),
    "hints": FROM_0,
    **dict.fromkeys(("num_iterations", "steps_per_generation", "generation_batch_size"), FROM_1),
    **dict.fromkeys(("ranked_rows", "negatives_each", "early_stopping_patience", "save_total_limit", "torch_empty_cache_steps", "ddp_bucket_cap_mb"), FROM_1),
    **dict.fromkeys(("eval_accumulation_steps", "dataloader_prefetch_factor", "pad_to_multiple_of"), FROM_1),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), SHARE),
}  # fmt: skip

TRACKERS = {
    "azure_ml": "azureml", "comet_ml": "comet_ml", "mlflow": "mlflow", "neptune": "neptune", "tensorboard": "tensorboard", "trackio": "trackio",
    "wandb": "wandb", "codecarbon": "codecarbon", "clearml": "clearml", "dagshub": "dagshub", "flyte": "flytekit", "dvclive": "dvclive",
    "swanlab": "swanlab",
}  # fmt: skip
# How the name of an optimiser begins or ends -> the package that it needs (transformers/trainer_optimizer.py).
OPTIMISERS = {
    "galore": "galore_torch", "apollo": "apollo_torch", "lomo": "lomo_optim", "adalomo": "lomo_optim", "grokadamw": "grokadamw",
    "schedule_free": "schedulefree", "torchao": "torchao", "stable_adamw": "optimi", "apex": "apex",
}  # fmt: skip


def check_keys(kind: type, section: dict[str, Any], where: Callable[[str], str]) -> None:
    """Raise ValueError naming the key for what a training of rectune's Trainers cannot do, and for a package that is not there.

    `section`: the keys that the recipe gives. A method of another kind has keys of its own.
    """
    if not issubclass(kind, Choosing):
        return
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    refused = {**REFUSED, **getattr(kind, "refuses", {})}
    for name, value in section.items():
        if name in refused and name in defaults and value is not None and value != defaults[name]:
            raise ValueError(f"{where(name)}: got {shown(value)}, which is refused: {refused[name]}.")
    for name, others in getattr(kind, "replaces", {}).items():
        both = [other for other in others if section.get(name) is not None and section.get(other) is not None]
        if both:
            raise ValueError(f"{where(both[0])}: `{name}` stands in for it; leave one of them out, or give it as null.")
    _check_trackers(section.get("report_to"), where("report_to"))
    _check_packages(section, where)


def ranges_of(kind: type) -> dict[str, Range]:
    """The numbers that keys of a training may have; none for a method of another kind."""
    return {**RANGES, **getattr(kind, "ranges", {})} if issubclass(kind, Choosing) else {}


def _check_trackers(given: Any, where: str) -> None:
    for name in given if isinstance(given, list) else [given]:
        if not isinstance(name, str) or name in ("none", "all", "kubeflow"):
            continue
        if name not in TRACKERS:
            raise ValueError(f"{where}: there is no tracker {shown(name)}.{near(name, [*TRACKERS, 'none', 'all'])}")
        _needs(TRACKERS[name], where, f"`{name}`", "leave the key out")


def _check_packages(section: dict[str, Any], where: Callable[[str], str]) -> None:
    if section.get("use_liger_kernel") is True:
        _needs("liger_kernel", where("use_liger_kernel"), "it", "leave the key out")
    optimiser = str(section.get("optim") or "")
    for part, package in OPTIMISERS.items():
        if optimiser.startswith(part) or optimiser.endswith(part) or f"_{part}" in optimiser:
            _needs(package, where("optim"), f"`{optimiser}`", "use another one such as adamw_torch")


def _needs(package: str, where: str, who: str, otherwise: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{where}: {who} needs the package `{package}`, which is not installed. Install it, or {otherwise}."
        )
