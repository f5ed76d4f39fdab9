"""Many runs of `simulate` behind one table: which ones, their execution, and what they say together."""
