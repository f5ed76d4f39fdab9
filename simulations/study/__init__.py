"""A grid of simulations that asks one question: its file, its cells, their execution, one table and one report."""
