# Targets beside `all`: what a person asks for. `snakemake --list-target-rules` prints this page.


rule demo:
    """The base model, Time-R1 and Invert4TVG: one table, its plots and report, and MLflow."""
    input:
        f"{ROOT}/track/demo.json",


rule tables:
    """Every table and figure of the configured experiments."""
    input:
        expand(f"{ROOT}/tables/{{table}}.md", table=plan.table_names()),


rule ablations:
    """The papers' ablation tables and figures."""
    input:
        expand(f"{ROOT}/tables/{{table}}.md", table=plan.table_names(ablations=True)),


rule report:
    """The report of all tables, as one HTML page."""
    input:
        f"{ROOT}/report/all.html",


# One target a file of config/tables, whatever is configured: snakemake table_invert4tvg_2, figure_invert4tvg_5.
for target, table in plan.targets.items():

    rule:
        name:
            target
        input:
            f"{ROOT}/tables/{table}.md",
            f"{ROOT}/plots/{table}.png",
