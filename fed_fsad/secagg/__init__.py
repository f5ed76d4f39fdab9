"""Secure aggregation: sites hide their updates under masks that cancel in the sum (Bonawitz et al. 2017).

The protocol is Flower's SecAgg+ with everybody as everybody's neighbour, and with Flower's own keys, key agreement,
encryption and secret sharing. Pure steps without transport: crypto.py, vector.py, site.py, opening.py; wire.py packs
them into Flower records.
"""
