"""The server's side of secure aggregation: four steps with the sites of a round, and of their updates only the sum."""
