"""leafdb.ring: where a key lives, and the value that says so.

token            a key's place on the circle of 2^64 tokens, and the storage keys of a partition
metadata         the cluster metadata: members, owners, buckets, in one value per epoch
change           how one epoch becomes the next: founding, bucket creation and removal
difference       what changed between two epochs, small enough to travel alone
preference_list  the clockwise walk over owners that skips hosts, then zones
ring             the lookup built from one epoch's metadata; the request path asks it
placement        who owns which partition
"""
