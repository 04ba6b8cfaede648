# Training: every stage of every kind, addressed by what it is. Equal stages of different arms are one job.
# in: samples, frames, the stage that it starts from   out: results/{scale}/stages/{kind}-{digest}/


rule train:
    """Train one stage, with a process for each GPU of the job's `gpu`. Checkpoints are not declared outputs: a job
    that is killed resumes from its newest.
    """
    input:
        lambda wildcards: plan.inputs(wildcards.stage),
    output:
        f"{ROOT}/stages/{{stage}}/model.done",
    log:
        f"{ROOT}/logs/train/{{stage}}.log",
    benchmark:
        f"{ROOT}/benchmarks/train/{{stage}}.tsv"
    conda:
        "../envs/tvg.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        spec=lambda wildcards: plan.store.spec(wildcards.stage),
    message:
        "train {wildcards.stage}"
    shell:
        "exec tvg train {params.spec:q} --threads {threads} --gpus {resources.gpu} --log {log:q}"
