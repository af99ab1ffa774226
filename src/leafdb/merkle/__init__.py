"""What differs between two replicas of a range: hash trees and their comparison, pure (docs/walks/anti-entropy.md)."""
