"""Every bound in the system, in one place. Bytes, seconds and counts; the unit is the last word of the name.

Settings a user may change live in `config`; these are the walls behind them. Relations between bounds are asserted
at the end, at import.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- values (docs/formats/record.md); enforced where a dot is minted, never in merge
KEY_BYTES_MAX: Final = 4 * KIB
VALUE_BYTES_MAX: Final = 1 * MIB
RECORD_BYTES_MAX: Final = 4 * MIB
SIBLINGS_WARN: Final = 10
SIBLINGS_MAX: Final = 64
CONTEXT_BYTES_MAX: Final = 16 * KIB
TTL_S_MAX: Final = 100 * 365 * 86_400

# -- wire
FRAME_BYTES_MAX: Final = 16 * MIB
FRAME_BYTES_MAX_UNAUTHENTICATED: Final = 4 * KIB
RECEIVE_BYTES: Final = 64 * KIB
OUTBOX_BYTES_MAX: Final = 32 * MIB
OUTBOX_BYTES_PAUSE: Final = 1 * MIB
CBOR_DEPTH_MAX: Final = 16
CBOR_ITEMS_MAX: Final = 100_000
HANDSHAKE_TIMEOUT_S: Final = 5.0
LARGE_FRAME_BYTES: Final = 64 * KIB
DECODE_BYTES_MAX: Final = 64 * MIB
CLIENT_SESSIONS_MAX: Final = 10_000
SESSION_REQUESTS_MAX: Final = 1_024
GREETINGS_MAX: Final = 1_024
"""Connections of a port that have not said or not proved who they are; past it the oldest of them gives way."""
DESCRIPTORS_FOR_FILES: Final = 2_048
"""Kept for files where a process may have twice as many; half of what it may have where not."""
FRAMES_PER_TURN: Final = 32
SEND_BYTES: Final = 256 * KIB
PEER_CALLS_MAX: Final = 4_096

# -- requests
REQUEST_TIMEOUT_S_DEFAULT: Final = 5.0
REQUEST_TIMEOUT_S_MAX: Final = 300.0
OPERATIONS_MAX: Final = 16_384
PENDING_KEYS_MAX: Final = 4_096
PENDING_PER_KEY_MAX: Final = 256
OP_MEMORY_BYTES_MAX: Final = 16 * MIB
EPOCH_WAITERS_MAX: Final = 4_096
SCAN_PAGE_ITEMS_MAX: Final = 4_096
SCAN_PAGE_BYTES_MAX: Final = 4 * MIB
SCAN_PARTITIONS_MAX: Final = 256
"""Of one page that a replica is asked for."""
BATCH_ITEMS_MAX: Final = 1_024

# -- explanations of requests
EXPLANATION_BYTES_MAX: Final = 256 * KIB
EXPLAINED_REPLICAS_MAX: Final = 64
EXPLAINED_WRITES_MAX: Final = 8
EXPLAINED_HOPS_MAX: Final = 4
EXPLAINED_NOTES_MAX: Final = 8
KEY_WRITES_MAX: Final = 1_024
KEY_HINTS_MAX: Final = 64

# -- cluster
NODES_MAX: Final = 1_024
NODE_ID_MAX: Final = 65_535
BUCKETS_MAX: Final = 1_024
BUCKET_NAME_BYTES_MAX: Final = 128
PARTITIONS_DEFAULT: Final = 256
PARTITIONS_MAX: Final = 65_536
REPLICAS_MAX: Final = 16
METADATA_BYTES_MAX: Final = 8 * MIB

# -- clocks and actors
EPOCH_LEASE: Final = 1 << 16
EPOCH_LEASE_RENEW_AT: Final = 0.8
HLC_LEASE_MS: Final = 10_000
HLC_DRIFT_MS_MAX: Final = 5_000
HLC_DRIFT_MS_ALARM: Final = 250

# -- storage
MEMTABLE_BYTES: Final = 16 * MIB
FROZEN_MEMTABLES_MAX: Final = 4
BLOCK_BYTES: Final = 16 * KIB
BLOCK_RESTART_INTERVAL: Final = 16
TABLE_BYTES: Final = 16 * MIB
LEVELS: Final = 7
LEVEL0_COMPACT_TABLES: Final = 4
LEVEL0_SLOW_TABLES: Final = 8
LEVEL0_STOP_TABLES: Final = 20
LEVEL1_BYTES: Final = 64 * MIB
LEVEL_FANOUT: Final = 10
UPPER_LEVELS_SHARE_MAX: Final = 0.25
"""Of the bytes of a tree's deepest level: so much may lie above it when compaction comes to rest, and be dead in it."""
BLOCK_CACHE_BYTES: Final = 32 * MIB
WAL_SEGMENT_BYTES: Final = 32 * MIB
WAL_BYTES_MAX: Final = 256 * MIB
WAL_BATCH_BYTES_MAX: Final = 1 * MIB
WAL_SYNC_INTERVAL_MS: Final = 100
READER_THREADS: Final = 4
READS_QUEUED_MAX: Final = 4_096
DISK_FREE_BYTES_LOW: Final = 64 * MIB
DISK_FREE_BYTES_HIGH: Final = 128 * MIB
MANIFEST_BYTES_MAX: Final = 1 * MIB
MANIFEST_RECORD_BYTES_MAX: Final = 64 * MIB
FILE_NUMBER_LEASE: Final = 256
SNAPSHOTS_MAX: Final = 16
SNAPSHOT_NAME_BYTES_MAX: Final = 64
BLOOM_BITS_PER_KEY: Final = 10
SORT_SLICE_KEYS: Final = 512
"""A flush sorts and writes so many keys at a time."""
FILTER_SLICE_KEYS: Final = 1_024
"""A table's filter is built in steps of so many keys, a third of a millisecond: between them the worker gives way."""
BLOCK_PAYLOAD_BYTES_MAX: Final = 32 * MIB
TABLE_APPEND_BYTES: Final = 256 * KIB
TABLE_SYNC_BYTES: Final = 1 * MIB
"""A file in the making is synced each time so much has come to it: a sync of the log, which may wait for whatever the
file system has to write, waits for no more."""
COMPACTION_BYTES_MAX: Final = 128 * MIB
WINDOWS: Final = 4
"""A tree that is kept by time has about so many large tables, and at most twice as many."""
WINDOW_TABLES_MAX: Final = 16
"""And no more than so many tables in all, for long."""
WINDOW_BYTES_MAX: Final = 512 * MIB
"""Of one window; what does not fit into the windows of a tree is kept by level."""
COMPACTION_CHUNK_BLOCKS: Final = 4
VALUE_INLINE_BYTES_MAX: Final = 2 * KIB
"""A longer value goes to a value file."""
VALUE_LIVE_SHARE_MIN: Final = 0.5
"""Values are moved out of a file of which less is live."""
VALUE_FILES_OPEN_MAX: Final = 1_024
TABLE_VALUE_FILES_MAX: Final = 256
"""Value files a merge may leave its tables with; beyond it values are brought together in one."""
LOST_RANGES_MAX: Final = 32
"""Of one table that is salvaged; more are told as fewer, wider ones."""
LOST_TABLES_MAX: Final = 64
"""Of so many nobody may have noted yet what was lost: the next salvage waits."""
QUARANTINE_BYTES_MAX: Final = 256 * MIB
QUARANTINE_FILES_MAX: Final = 64
WORKER_FRAME_BYTES_MAX: Final = 16 * MIB
WAL_FRAME_BYTES_MAX: Final = 64 * MIB
VERIFY_SLICE_BYTES: Final = 128 * KIB
VERIFY_DAMAGES_MAX: Final = 100
VERIFY_BYTES_PER_S: Final = 16 * MIB
SCRUB_BYTES_PER_S: Final = 1 * MIB
SCRUB_INTERVAL_S_DEFAULT: Final = 7 * 86_400.0
VERIFY_BYTES_PER_S_MAX: Final = 1 << 40
STORAGE_TREES_TOLD: Final = 64
STORAGE_DAMAGES_TOLD: Final = 20
WORKER_NICE: Final = 10

# -- repair
HINTS_BYTES_MAX: Final = 1_024 * MIB
HINT_AGE_S_MAX: Final = 3 * 3_600.0
HINT_CREDITS: Final = 128
HINT_BATCH_BYTES_MAX: Final = 256 * KIB
DIVERGENCE_AGE_S_DEFAULT: Final = 86_400.0
DIVERGENCE_AGE_S_MIN: Final = 60.0
DIVERGENCE_AGE_S_MAX: Final = 90 * 86_400.0
PURGE_INTERVAL_S_DEFAULT: Final = 600.0
PURGE_INTERVAL_S_MIN: Final = 1.0
PURGE_INTERVAL_S_MAX: Final = 30 * 86_400.0
TREE_LEAVES: Final = 1_024
TREES_KEPT_BYTES_MAX: Final = 64 * MIB
EXCHANGE_KEYS_MAX: Final = 1_024
EXCHANGE_BYTES_MAX: Final = 256 * KIB

# -- backups: the list of one, what a node shows of a snapshot in one answer, and what it is given back at once
BACKUP_FILES_MAX: Final = 200_000
BACKUP_LIST_BYTES_MAX: Final = 64 * MIB
BACKUP_CHUNK_BYTES_MAX: Final = 256 * KIB
BACKUP_PAGE_FILES_MAX: Final = 4_096
RESTORE_KEYS_MAX: Final = 1_024
RESTORE_BYTES_MAX: Final = 512 * KIB

# -- memory
MEMORY_BYTES_MAX_DEFAULT: Final = 384 * MIB

# -- model: siblings of all kinds in one record, hidden ones (tombstones, expired) too, where put starts to drop those
SIBLINGS_STORED_MAX: Final = 256

assert KEY_BYTES_MAX < VALUE_BYTES_MAX < RECORD_BYTES_MAX < FRAME_BYTES_MAX
assert FRAME_BYTES_MAX < OUTBOX_BYTES_MAX < MEMORY_BYTES_MAX_DEFAULT
assert OUTBOX_BYTES_PAUSE < OUTBOX_BYTES_MAX
assert VALUE_FILES_OPEN_MAX < DESCRIPTORS_FOR_FILES
assert RECEIVE_BYTES <= LARGE_FRAME_BYTES < FRAME_BYTES_MAX < DECODE_BYTES_MAX
assert SIBLINGS_WARN < SIBLINGS_MAX < SIBLINGS_STORED_MAX
assert LEVEL0_COMPACT_TABLES < LEVEL0_SLOW_TABLES < LEVEL0_STOP_TABLES
assert 2 * WINDOWS < WINDOW_TABLES_MAX
assert WAL_SEGMENT_BYTES < WAL_BYTES_MAX
assert VALUE_INLINE_BYTES_MAX < VALUE_BYTES_MAX
assert WAL_BATCH_BYTES_MAX + RECORD_BYTES_MAX < WAL_FRAME_BYTES_MAX
assert DISK_FREE_BYTES_LOW < DISK_FREE_BYTES_HIGH
assert BLOCK_BYTES + RECORD_BYTES_MAX < BLOCK_PAYLOAD_BYTES_MAX
assert HLC_DRIFT_MS_ALARM < HLC_DRIFT_MS_MAX

# -- cluster metadata and consensus registers
METADATA_RECENT_MAX: Final = 64
BALLOT_COUNTER_MAX: Final = (1 << 63) - 1
BALLOT_JUMP_MAX: Final = 1 << 32
REGISTER_NAME_BYTES_MAX: Final = 16 * KIB
REGISTER_BACKOFF_S_MIN: Final = 0.005
REGISTER_BACKOFF_S_MAX: Final = 0.2
REGISTER_RESEND_S: Final = 0.25
RING_HISTORY_MAX: Final = 256
CONTROL_DEATH_S: Final = 600.0
TRANSFER_BYTES_PER_S_MAX: Final = 1 << 40

assert BALLOT_JUMP_MAX < BALLOT_COUNTER_MAX
assert REGISTER_BACKOFF_S_MIN < REGISTER_BACKOFF_S_MAX < REGISTER_RESEND_S
assert METADATA_BYTES_MAX < FRAME_BYTES_MAX

# -- scans, at a time and node: coordinated for clients, and pages read for other coordinators
SCANS_MAX: Final = 16
REPLICA_SCANS_MAX: Final = 64

# -- sessions: keys a client remembers, contexts of one key, bytes of a token; and how often a read below its floor asks
SESSION_KEYS_MAX: Final = 2_048
SESSION_CONTEXT_BYTES_MAX: Final = 1 * MIB
SESSION_TOKEN_BYTES_MAX: Final = 32 * KIB
FLOOR_CONTEXTS_MAX: Final = 8
FLOOR_PAUSE_S_MIN: Final = 0.02
FLOOR_PAUSE_S_MAX: Final = 0.25

assert FLOOR_CONTEXTS_MAX < 256
assert SESSION_TOKEN_BYTES_MAX > 2 * (KEY_BYTES_MAX + 1 * KIB)

# -- accounts: what the cluster metadata hold of users, roles and tokens, and what logging in may cost
ACCOUNT_NAME_BYTES_MAX: Final = 64
USERS_MAX: Final = 512
ROLES_MAX: Final = 256
TOKENS_MAX: Final = 1_024
USER_ROLES_MAX: Final = 16
GRANTS_MAX: Final = 4_096
"""Of all roles together: with these the metadata stay well within CBOR_ITEMS_MAX."""
GRANT_PREFIX_BYTES_MAX: Final = 256
ACCOUNTS_BYTES_MAX: Final = 1 * MIB
"""Of users, roles and tokens together, encoded."""
SCRAM_SALT_BYTES: Final = 16
SCRAM_SALT_BYTES_MAX: Final = 64
SCRAM_ITERATIONS: Final = 600_000
"""What a new password is hashed with: 0.15 s of the client's time, once per process (today's advice for PBKDF2)."""
SCRAM_ITERATIONS_MIN: Final = 15_000
SCRAM_ITERATIONS_MAX: Final = 10_000_000
"""More would let a false node keep a client busy for seconds."""
SCRAM_MESSAGE_BYTES_MAX: Final = 1 * KIB
PASSWORD_BYTES_MAX: Final = 1 * KIB
TOKEN_BYTES: Final = 32
LOGIN_FAILURES_BURST: Final = 10
"""Failed logins of one source before it has to wait."""
LOGIN_FAILURES_PER_S: Final = 0.2
LOGIN_SOURCES_MAX: Final = 4_096
AUDIT_LINES_BURST: Final = 64
"""Lines about refusals that are written at once; beyond them AUDIT_LINES_PER_S."""
AUDIT_LINES_PER_S: Final = 8.0

assert ACCOUNTS_BYTES_MAX < METADATA_BYTES_MAX
assert SCRAM_ITERATIONS_MIN <= SCRAM_ITERATIONS <= SCRAM_ITERATIONS_MAX
assert 2 * SCRAM_MESSAGE_BYTES_MAX < FRAME_BYTES_MAX_UNAUTHENTICATED
