# Evaluation: greedy predictions of one model on one benchmark, and their scores.
# in: a trained stage or the base model, samples, frames   out: results/{scale}/evaluations/{benchmark}-{digest}/


rule evaluate:
    """Predict and score. A killed job keeps the predictions that it has made."""
    input:
        lambda wildcards: plan.inputs(wildcards.evaluation),
    output:
        f"{ROOT}/evaluations/{{evaluation}}/metrics.json",
    log:
        f"{ROOT}/logs/evaluate/{{evaluation}}.log",
    benchmark:
        f"{ROOT}/benchmarks/evaluate/{{evaluation}}.tsv"
    conda:
        "../envs/tvg.yaml"
    threads: 1
    params:
        spec=lambda wildcards: plan.store.spec(wildcards.evaluation),
    message:
        "evaluate {wildcards.evaluation}"
    shell:
        "exec tvg evaluate {params.spec:q} --threads {threads} --log {log:q}"
