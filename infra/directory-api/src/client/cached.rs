//! Answers kept by key: fresh for a while, then good enough only while the directory is away.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use super::{ClientOptions, DirectoryError};
use crate::types::ChangeNumber;

/// The newest change that the feed has delivered.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<AtomicU64>);

impl Seen {
    pub(super) fn number(&self) -> ChangeNumber {
        ChangeNumber(self.0.load(Ordering::SeqCst))
    }

    pub(super) fn set(&self, number: ChangeNumber) {
        self.0.store(number.0, Ordering::SeqCst);
    }
}

/// An answer and the change after which it was true.
#[derive(Clone)]
pub(super) struct Stamped<V> {
    pub(super) value: V,
    pub(super) change: ChangeNumber,
    /// False for "unknown", which is kept for a short time and never served stale.
    pub(super) known: bool,
}

/// A cache over one kind of question.
pub(super) struct Cached<K, V> {
    fresh: Cache<K, Arc<Stamped<V>>>,
    /// Only known answers, kept for when the directory is away.
    stale: Cache<K, Arc<Stamped<V>>>,
    seen: Seen,
}

impl<K, V> Cached<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(options: &ClientOptions, seen: &Seen) -> Self {
        let life = Life {
            positive: options.positive_ttl,
            negative: options.negative_ttl,
        };
        Self {
            fresh: Cache::builder()
                .max_capacity(options.entries_max)
                .expire_after(life)
                .build(),
            stale: Cache::builder()
                .max_capacity(options.entries_max)
                .time_to_live(options.stale_max)
                .build(),
            seen: seen.clone(),
        }
    }

    /// The kept answer, or what `ask` answers; askers of the same key wait for one `ask`.
    pub(super) async fn get(
        &self,
        key: &K,
        ask: impl Future<Output = Result<Stamped<V>, DirectoryError>>,
    ) -> Result<V, DirectoryError> {
        let asked = AtomicBool::new(false);
        let answer = self
            .fresh
            .try_get_with_by_ref(key, async {
                let answer = Arc::new(ask.await?);
                if answer.known {
                    self.stale.insert(key.clone(), Arc::clone(&answer)).await;
                } else {
                    self.stale.invalidate(key).await;
                }
                asked.store(true, Ordering::Relaxed);
                Ok(answer)
            })
            .await;
        match answer {
            Ok(answer) => {
                // A change may have been delivered while this answer, older than it, was on its
                // way. The feed raises `seen` before it drops keys, so one of the two catches it.
                if asked.into_inner() && answer.change < self.seen.number() {
                    self.drop_key(key).await;
                }
                Ok(answer.value.clone())
            }
            Err(error) => {
                let error = DirectoryError::clone(&error);
                if !error.is_away() {
                    self.drop_key(key).await;
                    return Err(error);
                }
                match self.stale.get(key).await {
                    Some(answer) => {
                        metrics::counter!(super::STALE_ANSWERS).increment(1);
                        Ok(answer.value.clone())
                    }
                    None => Err(error),
                }
            }
        }
    }
    /// Forgets one answer, the stale copy too: it is known to be wrong.
    pub(super) async fn drop_key(&self, key: &K) {
        self.fresh.invalidate(key).await;
        self.stale.invalidate(key).await;
    }

    /// Forgets every answer that a test finds touched. Walks the whole cache.
    pub(super) async fn drop_where(&self, touched: impl Fn(&K, &V) -> bool) {
        // The stale cache holds every known answer, the fresh one the unknown ones besides.
        for cache in [&self.fresh, &self.stale] {
            let keys: Vec<K> = cache
                .iter()
                .filter(|(key, answer)| touched(key, &answer.value))
                .map(|(key, _)| K::clone(&key))
                .collect();
            for key in &keys {
                self.drop_key(key).await;
            }
        }
    }

    /// Forgets everything.
    pub(super) fn drop_all(&self) {
        self.fresh.invalidate_all();
        self.stale.invalidate_all();
    }
}

/// How long fresh answers live.
struct Life {
    positive: Duration,
    negative: Duration,
}

impl<K, V> Expiry<K, Arc<Stamped<V>>> for Life {
    fn expire_after_create(&self, _: &K, answer: &Arc<Stamped<V>>, _: Instant) -> Option<Duration> {
        Some(if answer.known {
            self.positive
        } else {
            self.negative
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::AtomicUsize;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn cache() -> (Arc<Cached<u32, &'static str>>, Seen) {
        let seen = Seen::default();
        let options = ClientOptions {
            positive_ttl: SHORT,
            negative_ttl: SHORT,
            ..ClientOptions::default()
        };
        (Arc::new(Cached::new(&options, &seen)), seen)
    }

    fn answer(
        value: &'static str,
        change: u64,
        known: bool,
    ) -> Result<Stamped<&'static str>, DirectoryError> {
        Ok(Stamped {
            value,
            change: ChangeNumber(change),
            known,
        })
    }

    fn away<T>() -> Result<T, DirectoryError> {
        Err(DirectoryError::nonsense("no answer"))
    }

    #[tokio::test]
    async fn many_askers_cause_one_request() {
        let (cache, _) = cache();
        let asked = Arc::new(AtomicUsize::new(0));
        let askers: Vec<_> = (0..100)
            .map(|_| {
                let (cache, asked) = (Arc::clone(&cache), Arc::clone(&asked));
                tokio::spawn(async move {
                    let ask = async {
                        asked.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        answer("here", 0, true)
                    };
                    cache.get(&1, ask).await
                })
            })
            .collect();
        for asker in askers {
            assert_eq!(asker.await.unwrap().unwrap(), "here");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_answer_asked_for_again_after_its_time_is_kept_again() {
        let options = ClientOptions {
            positive_ttl: SHORT * 10,
            ..ClientOptions::default()
        };
        let cache = Cached::new(&options, &Seen::default());
        for value in ["first", "second"] {
            for _ in 0..3 {
                let kept = cache.get(&1, async { answer(value, 0, true) }).await;
                assert_eq!(kept.unwrap(), value);
            }
            let kept = cache.get(&1, async { answer("later", 0, true) }).await;
            assert_eq!(kept.unwrap(), value, "asked again at once");
            tokio::time::sleep(SHORT * 11).await;
        }
    }

    #[tokio::test]
    async fn a_known_answer_is_served_stale_and_an_unknown_never() {
        let (cache, _) = cache();
        cache
            .get(&1, async { answer("here", 0, true) })
            .await
            .unwrap();
        cache
            .get(&2, async { answer("nobody", 0, false) })
            .await
            .unwrap();
        assert_eq!(
            cache.get(&2, async { away() }).await.unwrap(),
            "nobody",
            "still fresh"
        );
        tokio::time::sleep(SHORT * 2).await;
        assert_eq!(cache.get(&1, async { away() }).await.unwrap(), "here");
        assert!(cache.get(&2, async { away() }).await.unwrap_err().is_away());
        // Once it is known to be gone, the old answer does not come back.
        cache
            .get(&1, async { answer("nobody", 0, false) })
            .await
            .unwrap();
        tokio::time::sleep(SHORT * 2).await;
        assert!(cache.get(&1, async { away() }).await.unwrap_err().is_away());
    }

    #[tokio::test]
    async fn an_answer_overtaken_by_a_change_is_given_but_not_kept() {
        let (cache, seen) = cache();
        let ask = async {
            seen.set(ChangeNumber(6));
            cache.drop_key(&1).await;
            answer("old", 5, true)
        };
        assert_eq!(cache.get(&1, ask).await.unwrap(), "old");
        assert_eq!(
            cache
                .get(&1, async { answer("new", 6, true) })
                .await
                .unwrap(),
            "new"
        );
        seen.set(ChangeNumber(9));
        assert_eq!(
            cache.get(&1, async { away() }).await.unwrap(),
            "new",
            "untouched by 7 to 9"
        );
        cache.drop_where(|key, _| *key == 1).await;
        assert!(cache.get(&1, async { away() }).await.is_err());
    }
}
