# Inversion tasks: the verbs of every query, and the query with its verbs masked.
# in: results/{scale}/samples/{set}.{split}-*.jsonl   out: results/{scale}/samples/{set}.{split}.{verbs}-*.jsonl


rule tasks:
    """Extract the verbs of a split's queries with the scale's back-end; queries without a verb are listed."""
    input:
        lambda wildcards: plan.inputs(wildcards.samples),
    output:
        f"{ROOT}/samples/{{samples}}.jsonl",
    log:
        f"{ROOT}/logs/tasks/{{samples}}.log",
    benchmark:
        f"{ROOT}/benchmarks/tasks/{{samples}}.tsv"
    conda:
        "../envs/tvg.yaml"
    params:
        spec=lambda wildcards: plan.store.spec(wildcards.samples),
    message:
        "make tasks {wildcards.samples}"
    shell:
        "tvg tasks {params.spec:q} --log {log:q}"
