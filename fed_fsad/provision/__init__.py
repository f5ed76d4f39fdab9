"""From one file that names a server and its sites to one kit per host: certificates, keys, settings, instructions."""
