//! Answers kept by key: fresh for a while, then good enough only while the directory is away.

use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::{ClientOptions, DirectoryError};
use crate::types::ChangeNumber;

/// What the feed of changes has shown.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Feed>);

#[derive(Default)]
struct Feed {
    /// The newest change that was delivered.
    number: AtomicU64,
    /// When all changes there were had last been delivered.
    complete_at: Mutex<Option<Instant>>,
    /// When the directory has last answered anything.
    answered_at: Mutex<Option<Instant>>,
    is_silent: AtomicBool,
}

impl Seen {
    pub(super) fn number(&self) -> ChangeNumber {
        ChangeNumber(self.0.number.load(Ordering::SeqCst))
    }

    pub(super) fn set(&self, number: ChangeNumber) {
        self.0.number.store(number.0, Ordering::SeqCst);
    }

    /// Every change there is has been delivered.
    pub(super) fn note_complete(&self) {
        *locked(&self.0.complete_at) = Some(Instant::now());
    }

    /// Whether what was true at `known` may be taken for true still: it has not been longer than that that nobody told
    /// whether it is.
    pub(super) fn vouches(&self, known: Instant, stale_max: Duration) -> bool {
        let since = locked(&self.0.complete_at).map_or(known, |at| at.max(known));
        since.elapsed() <= stale_max
    }

    /// Whether the directory gives no answer. Nobody needs to wait for it to find out again: whoever asks for changes
    /// does.
    pub(super) fn is_silent(&self) -> bool {
        self.0.is_silent.load(Ordering::Relaxed)
    }

    /// It has answered something.
    pub(super) fn note_answer(&self) {
        *locked(&self.0.answered_at) = Some(Instant::now());
        self.set_silent(false);
    }

    /// It gave no answer to the question for changes, and nobody was there at all, or it may only be slow.
    pub(super) fn note_silence(&self, is_unreachable: bool) {
        let answered = *locked(&self.0.answered_at);
        if is_unreachable || answered.is_none_or(|at| at.elapsed() > SLOW_MAX) {
            self.set_silent(true);
        }
    }

    fn set_silent(&self, is_silent: bool) {
        self.0.is_silent.store(is_silent, Ordering::Relaxed);
        metrics::gauge!(super::SILENT).set(f64::from(u8::from(is_silent)));
    }
}

/// One that answered something within this time is busy, and not away.
const SLOW_MAX: Duration = Duration::from_secs(5);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer and the change after which it was true.
#[derive(Clone)]
pub(super) struct Stamped<V> {
    pub(super) value: V,
    pub(super) change: ChangeNumber,
    /// False for "unknown" and whatever else there is no end of: kept for a short time and never served stale.
    pub(super) known: bool,
    /// Of how many small answers it takes the place.
    pub(super) weight: u32,
}

/// A cache over one kind of question.
pub(super) struct Cached<K, V> {
    /// What is asked, for metrics.
    of: &'static str,
    fresh: Cache<K, Arc<Stamped<V>>>,
    /// Only known answers and when they came, kept for when the directory is away.
    stale: Cache<K, (Arc<Stamped<V>>, Instant)>,
    stale_max: Duration,
    seen: Seen,
}

impl<K, V> Cached<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(of: &'static str, options: &ClientOptions, seen: &Seen) -> Self {
        let life = Life {
            positive: options.positive_ttl,
            negative: options.negative_ttl,
        };
        Self {
            of,
            fresh: Cache::builder()
                .max_capacity(options.entries_max)
                .weigher(|_, answer: &Arc<Stamped<V>>| answer.weight)
                .expire_after(life)
                .build(),
            // It is read in outages alone, so what counts is what was last asked for; by how often it was read, new answers
            // would not get in once it is full.
            stale: Cache::builder()
                .max_capacity(options.entries_max)
                .weigher(|_, (answer, _): &(Arc<Stamped<V>>, Instant)| answer.weight)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            stale_max: options.stale_max,
            seen: seen.clone(),
        }
    }

    /// The kept answer, or what `ask` answers; askers of the same key wait for one `ask`. A directory that is known to be
    /// silent is not asked what was known before.
    pub(super) async fn get(
        &self,
        key: &K,
        ask: impl Future<Output = Result<Stamped<V>, DirectoryError>>,
    ) -> Result<V, DirectoryError> {
        let answer = self.find(key, ask).await;
        if answer.as_ref().is_err_and(DirectoryError::is_away) {
            self.count("none");
        }
        answer
    }

    /// The same for one who may find the answer elsewhere when there is none, and has that counted.
    pub(super) async fn find(
        &self,
        key: &K,
        ask: impl Future<Output = Result<Stamped<V>, DirectoryError>>,
    ) -> Result<V, DirectoryError> {
        let asked = AtomicBool::new(false);
        let answer = self
            .fresh
            .try_get_with_by_ref(key, async {
                if self.seen.is_silent() && self.stale.contains_key(key) {
                    return Err(DirectoryError::silent());
                }
                let answer = Arc::new(ask.await?);
                if answer.known {
                    let kept = (Arc::clone(&answer), Instant::now());
                    self.stale.insert(key.clone(), kept).await;
                } else {
                    self.stale.invalidate(key).await;
                }
                asked.store(true, Ordering::Relaxed);
                Ok(answer)
            })
            .await;
        match answer {
            Ok(answer) => {
                let was_asked = asked.into_inner();
                self.count(if was_asked { "directory" } else { "kept" });
                // A change may have been delivered while this answer, older than it, was on its
                // way. The feed raises `seen` before it drops keys, so one of the two catches it.
                if was_asked && answer.change < self.seen.number() {
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
                let kept = self.kept_while_away(key).await.ok_or(error)?;
                self.count("stale");
                Ok(kept)
            }
        }
    }

    /// What is good for a key while the directory is away.
    pub(super) async fn kept_while_away(&self, key: &K) -> Option<V> {
        let (answer, at) = self.stale.get(key).await?;
        let is_good = self.seen.vouches(at, self.stale_max);
        is_good.then(|| answer.value.clone())
    }

    pub(super) fn count(&self, from: &'static str) {
        metrics::counter!(super::ANSWERS, "of" => self.of, "from" => from).increment(1);
    }

    /// Forgets one answer, the stale copy too: it is known to be wrong.
    pub(super) async fn drop_key(&self, key: &K) {
        self.fresh.invalidate(key).await;
        self.stale.invalidate(key).await;
    }

    /// Forgets every answer that a test finds touched. Walks the whole cache.
    pub(super) async fn drop_where(&self, touched: impl Fn(&K, &V) -> bool) {
        // The stale cache holds every known answer, the fresh one the unknown ones besides.
        let fresh = self.fresh.iter();
        let stale = self.stale.iter().map(|(key, (answer, _))| (key, answer));
        let keys: Vec<K> = fresh
            .chain(stale)
            .filter(|(key, answer)| touched(key, &answer.value))
            .map(|(key, _)| K::clone(&key))
            .collect();
        for key in &keys {
            self.drop_key(key).await;
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
        (Arc::new(Cached::new("test", &options, &seen)), seen)
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
            weight: 1,
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
        let cache = Cached::new("test", &options, &Seen::default());
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
    async fn a_stale_answer_counts_from_when_the_feed_fell_silent_and_not_for_ever() {
        let seen = Seen::default();
        let options = ClientOptions {
            positive_ttl: SHORT,
            stale_max: SHORT * 5,
            ..ClientOptions::default()
        };
        let cache = Cached::new("test", &options, &seen);
        let get = async |ask| cache.get(&1, ask).await;
        get(std::future::ready(answer("here", 0, true)))
            .await
            .unwrap();
        tokio::time::sleep(SHORT * 6).await;
        assert!(get(std::future::ready(away())).await.is_err());
        // The feed has told every change so far: nothing has changed.
        seen.note_complete();
        assert_eq!(get(std::future::ready(away())).await.unwrap(), "here");
        tokio::time::sleep(SHORT * 6).await;
        assert!(get(std::future::ready(away())).await.is_err());
    }

    #[tokio::test]
    async fn a_directory_known_to_be_silent_is_not_waited_for_by_who_has_an_answer() {
        let (cache, seen) = cache();
        cache
            .get(&1, async { answer("here", 0, true) })
            .await
            .unwrap();
        tokio::time::sleep(SHORT * 2).await;
        seen.note_answer();
        seen.note_silence(false);
        assert!(!seen.is_silent(), "it may only be slow");
        seen.note_silence(true);
        let never = std::future::pending();
        assert_eq!(cache.get(&1, never).await.unwrap(), "here");
        // Who has none asks.
        let other = cache.get(&2, async { answer("there", 0, true) }).await;
        assert_eq!(other.unwrap(), "there");
        seen.note_answer();
        let asked = cache.get(&1, async { answer("moved", 1, true) }).await;
        assert_eq!(asked.unwrap(), "moved");
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
