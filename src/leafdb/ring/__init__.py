"""leafdb.ring: where a key lives, and the value that says so.

token            a key's place on the circle of 2^64 tokens, and the storage keys of a partition
metadata         the cluster metadata: members, owners, buckets, in one value per epoch
staging          what operators want changed, and what cannot be
proposal         from what is staged to a plan
plan             a change of the ring in progress: its phases, the owners to be
transitions      how a plan becomes the next epoch: stage, commit, advance, finish, abort
control_set      how the register's acceptors change
recovery         the value with which the register is begun anew, when they are gone for good
plan_report      what a plan would move and cost; plan_safety, what it could lose
difference       what changed between two epochs, small enough to travel alone
history          what changed between two epochs, in words
preference_list  the clockwise walk over owners that skips hosts, then zones
owner_table      the preference lists that one owner table means
ring             the lookup built from one epoch's metadata; the request path asks it
placement        who owns which partition
"""
