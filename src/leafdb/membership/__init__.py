"""Who is alive: SWIM with Lifeguard, as one pure machine (docs/walks/liveness.md). Who *belongs* is the metadata's."""
