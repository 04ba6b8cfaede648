# Data sets: drawn here (mini) or downloaded from their public sources, then their annotations as one JSONL a split.
# in: config/datasets/*.yaml   out: data/{dataset}/, results/{scale}/fetched/, results/{scale}/samples/


rule fetch:
    """Draw or download the videos and annotation files of a data set; what is there already is kept."""
    output:
        f"{ROOT}/fetched/{{dataset}}.json",
    log:
        f"{ROOT}/logs/fetch/{{dataset}}.log",
    benchmark:
        f"{ROOT}/benchmarks/fetch/{{dataset}}.tsv"
    conda:
        "../envs/tvg.yaml"
    threads: 2
    params:
        spec=lambda wildcards: plan.store.spec(wildcards.dataset),
        data=DATA,
    message:
        "fetch {wildcards.dataset}"
    shell:
        "tvg download {params.spec:q} --data {params.data:q} --jobs {threads} --log {log:q}"


rule annotations:
    """Read a split's annotations, check them, and list what was rejected beside what was kept."""
    input:
        lambda wildcards: plan.inputs(wildcards.annotations),
    output:
        f"{ROOT}/samples/{{annotations}}.jsonl",
    log:
        f"{ROOT}/logs/annotations/{{annotations}}.log",
    benchmark:
        f"{ROOT}/benchmarks/annotations/{{annotations}}.tsv"
    conda:
        "../envs/tvg.yaml"
    threads: 2
    params:
        spec=lambda wildcards: plan.store.spec(wildcards.annotations),
        data=DATA,
    message:
        "read annotations {wildcards.annotations}"
    shell:
        "tvg annotations {params.spec:q} --data {params.data:q} --jobs {threads} --log {log:q}"
