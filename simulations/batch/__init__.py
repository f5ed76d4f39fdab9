"""Many simulations in processes of their own, within a budget, and what their support draws say together."""
