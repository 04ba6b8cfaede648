"""The report: tables beside the papers' own numbers, plots, and one page that holds it all."""
