# Tables, plots and the report page: our numbers beside the papers', clearly apart.
# in: results/{scale}/evaluations/, config/tables, config/published   out: results/{scale}/{tables,plots,report}/


rule table:
    """One table or figure, as CSV and Markdown: of config/tables, or an experiment's arms."""
    input:
        lambda wildcards: plan.metrics([wildcards.table]),
        config=lambda wildcards: plan.table_source(wildcards.table),
    output:
        f"{ROOT}/tables/{{table}}.csv",
        report(
            f"{ROOT}/tables/{{table}}.md",
            category="tables",
            caption="captions/table.rst",
        ),
    log:
        f"{ROOT}/logs/table/{{table}}.log",
    benchmark:
        f"{ROOT}/benchmarks/table/{{table}}.tsv"
    conda:
        "../envs/tvg.yaml"
    params:
        results=ROOT,
    message:
        "write table {wildcards.table}"
    shell:
        "tvg table {wildcards.table} --results {params.results:q} --log {log:q}"


rule figure:
    """The plot of one table or figure."""
    input:
        f"{ROOT}/tables/{{table}}.md",
    output:
        report(
            f"{ROOT}/plots/{{table}}.png",
            category="figures",
            caption="captions/figure.rst",
        ),
    log:
        f"{ROOT}/logs/figure/{{table}}.log",
    benchmark:
        f"{ROOT}/benchmarks/figure/{{table}}.tsv"
    conda:
        "../envs/tvg.yaml"
    params:
        results=ROOT,
    message:
        "draw {wildcards.table}"
    shell:
        "tvg figure {wildcards.table} --results {params.results:q} --log {log:q}"


rule page:
    """The report page of one set of tables, with its plots: one HTML file that asks nothing of the network."""
    input:
        lambda wildcards: expand(
            f"{ROOT}/tables/{{table}}.md", table=plan.pages(wildcards.pages)
        ),
        lambda wildcards: plan.metrics(plan.pages(wildcards.pages)),
    output:
        report(
            f"{ROOT}/report/{{pages}}.html",
            category="report",
            caption="captions/report.rst",
        ),
    log:
        f"{ROOT}/logs/page/{{pages}}.log",
    benchmark:
        f"{ROOT}/benchmarks/page/{{pages}}.tsv"
    conda:
        "../envs/tvg.yaml"
    params:
        results=ROOT,
        tables=lambda wildcards: plan.pages(wildcards.pages),
    message:
        "write report {wildcards.pages}"
    shell:
        "tvg report {wildcards.pages} --results {params.results:q} --tables {params.tables} --log {log:q}"
