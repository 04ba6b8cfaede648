# Frames: every video sampled once, at the scale's rate and pixel budget, into a fixed number of shards.
# in: data/{dataset}/videos/   out: results/{scale}/frames/{frames}/


rule frames:
    """Decode one shard of a data set's videos. A killed job keeps the videos that it has finished."""
    input:
        lambda wildcards: plan.inputs(wildcards.frames),
    output:
        f"{ROOT}/frames/{{frames}}/{{shard}}-of-{SHARDS:02d}.json",
    log:
        f"{ROOT}/logs/frames/{{frames}}/{{shard}}.log",
    benchmark:
        f"{ROOT}/benchmarks/frames/{{frames}}/{{shard}}.tsv"
    conda:
        "../envs/tvg.yaml"
    threads: 1
    params:
        spec=lambda wildcards: plan.store.spec(wildcards.frames),
        of=SHARDS,
        data=DATA,
    message:
        "decode {wildcards.frames}, shard {wildcards.shard}"
    shell:
        "tvg cache {params.spec:q} --shard {wildcards.shard} --of {params.of}"
        " --data {params.data:q} --jobs {threads} --log {log:q}"
