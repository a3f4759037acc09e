"""Reports: a run folder read into facts, the facts as plots and one page. Never imports torch."""
