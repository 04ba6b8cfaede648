# Data that a stage makes: samples of the right difficulty (filter), good completions as targets (collect).
# in: samples, frames, a model or a training's completions   out: results/{scale}/stages/{kind}-{digest}/samples.jsonl


rule select:
    """Choose what a later stage trains on. A killed job keeps the answers that it has made."""
    input:
        lambda wildcards: plan.inputs(wildcards.chosen),
    output:
        f"{ROOT}/stages/{{chosen}}/samples.jsonl",
    log:
        f"{ROOT}/logs/select/{{chosen}}.log",
    benchmark:
        f"{ROOT}/benchmarks/select/{{chosen}}.tsv"
    conda:
        "../envs/tvg.yaml"
    threads: 1
    params:
        spec=lambda wildcards: plan.store.spec(wildcards.chosen),
    message:
        "select {wildcards.chosen}"
    shell:
        "exec tvg select {params.spec:q} --threads {threads} --log {log:q}"
