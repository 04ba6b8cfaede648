# MLflow: `tvg track` reads what runs have written and is the only one that writes MLflow. No training waits for it.
# in: results/{scale}/   out: results/mlflow.db, or the server at tracking_uri


rule track:
    """Write whatever has finished so far into MLflow; run it when you like."""
    log:
        f"{ROOT}/logs/track/now.log",
    localrule: True
    conda:
        "../envs/tvg.yaml"
    params:
        results=ROOT,
        uri=["--uri", plan.config.tracking_uri] if plan.config.tracking_uri else [],
    shell:
        "tvg track --results {params.results:q} {params.uri:q} --log {log:q}"


rule tracked:
    """Write the runs of one report page into MLflow."""
    input:
        f"{ROOT}/report/{{pages}}.html",
    output:
        f"{ROOT}/track/{{pages}}.json",
    log:
        f"{ROOT}/logs/track/{{pages}}.log",
    benchmark:
        f"{ROOT}/benchmarks/track/{{pages}}.tsv"
    localrule: True
    conda:
        "../envs/tvg.yaml"
    params:
        results=ROOT,
        uri=["--uri", plan.config.tracking_uri] if plan.config.tracking_uri else [],
    message:
        "log to MLflow: {wildcards.pages}"
    shell:
        "tvg track --results {params.results:q} {params.uri:q} --summary {output:q} --log {log:q}"
