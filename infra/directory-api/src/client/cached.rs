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
    /// When a question was first not answered behind that.
    doubted_at: Mutex<Option<Instant>>,
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
    pub(super) fn note_complete(&self, now: Instant) {
        *locked(&self.0.complete_at) = Some(now);
    }

    /// Whether what was true at `known` may be taken for true still: it has not been longer than that that nobody told
    /// whether it is.
    pub(super) fn vouches(&self, known: Instant, now: Instant, stale_max: Duration) -> bool {
        let since = locked(&self.0.complete_at).map_or(known, |at| at.max(known));
        now.saturating_duration_since(since) <= stale_max
    }

    /// Whether the directory gives no answer. Nobody needs to wait for it to find out again: whoever asks for changes
    /// does.
    pub(super) fn is_silent(&self) -> bool {
        self.0.is_silent.load(Ordering::Relaxed)
    }

    /// It has answered something.
    pub(super) fn note_answer(&self, now: Instant) {
        *locked(&self.0.answered_at) = Some(now);
        *locked(&self.0.doubted_at) = None;
        self.set_silent(false);
    }

    /// It gave no answer to a question for changes, asked when `began`. Either nobody was there at all; or it may only be
    /// slow, or what was broken is one connection, and a second question shows.
    pub(super) fn note_silence(&self, began: Instant, now: Instant, is_unreachable: bool) {
        let doubted = *locked(&self.0.doubted_at).get_or_insert(now);
        let answered = *locked(&self.0.answered_at);
        let is_slow = answered.is_some_and(|at| now.saturating_duration_since(at) <= SLOW_MAX);
        if is_unreachable || (doubted <= began && !is_slow) {
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
        let is_good = self.seen.vouches(at, Instant::now(), self.stale_max);
        is_good.then(|| answer.value.clone())
    }

    pub(super) fn count(&self, from: &'static str) {
        metrics::counter!(super::ANSWERS, "of" => self.of, "from" => from).increment(1);
    }

    /// Whether anything is kept, be it for when the directory is away.
    pub(super) fn has(&self, key: &K) -> bool {
        self.fresh.contains_key(key) || self.stale.contains_key(key)
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

    fn cache() -> (Arc<Cached<u32, &'static str>>, Seen) {
        cache_with(&ClientOptions::default())
    }

    fn cache_with(options: &ClientOptions) -> (Arc<Cached<u32, &'static str>>, Seen) {
        let seen = Seen::default();
        (Arc::new(Cached::new("test", options, &seen)), seen)
    }

    /// As its time does.
    async fn ends(cache: &Cached<u32, &'static str>, key: u32) {
        cache.fresh.invalidate(&key).await;
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
            positive_ttl: Duration::from_secs(3),
            ..ClientOptions::default()
        };
        let (cache, _) = cache_with(&options);
        let get = async |value| {
            let kept = cache.get(&1, async { answer(value, 0, true) }).await;
            kept.unwrap()
        };
        get("first").await;
        for (is, next) in [("first", "second"), ("second", "third")] {
            assert_eq!(get(next).await, is, "asked again at once");
            let began = Instant::now();
            while get(next).await == is {
                assert!(began.elapsed() < 10 * options.positive_ttl);
                tokio::time::sleep(options.positive_ttl / 30).await;
            }
        }
    }

    #[tokio::test]
    async fn a_known_answer_is_served_stale_and_an_unknown_never() {
        let (cache, _) = cache();
        let get = async |key, ask| cache.get(&key, std::future::ready(ask)).await;
        get(1, answer("here", 0, true)).await.unwrap();
        get(2, answer("nobody", 0, false)).await.unwrap();
        assert_eq!(get(2, away()).await.unwrap(), "nobody", "still fresh");
        ends(&cache, 1).await;
        ends(&cache, 2).await;
        assert_eq!(get(1, away()).await.unwrap(), "here");
        assert!(get(2, away()).await.unwrap_err().is_away());
        // Once it is known to be gone, the old answer does not come back.
        get(1, answer("nobody", 0, false)).await.unwrap();
        ends(&cache, 1).await;
        assert!(get(1, away()).await.unwrap_err().is_away());
    }

    #[tokio::test]
    async fn a_stale_answer_is_given_for_as_long_as_set_and_no_longer() {
        for (stale_max, is_given) in [(Duration::from_secs(3_600), true), (Duration::ZERO, false)] {
            let (cache, _) = cache_with(&ClientOptions {
                stale_max,
                ..ClientOptions::default()
            });
            let get = async |ask| cache.get(&1, std::future::ready(ask)).await;
            get(answer("here", 0, true)).await.unwrap();
            ends(&cache, 1).await;
            assert_eq!(get(away()).await.is_ok(), is_given);
        }
    }

    #[test]
    fn what_is_known_counts_from_when_the_feed_fell_silent() {
        let (seen, came) = (Seen::default(), Instant::now());
        let second = Duration::from_secs(1);
        let vouches = |later| seen.vouches(came, came + later, 5 * second);
        assert!(vouches(5 * second) && !vouches(6 * second));
        // The feed has told every change so far: nothing has changed.
        seen.note_complete(came + 4 * second);
        assert!(vouches(9 * second) && !vouches(10 * second));
    }

    #[test]
    fn one_question_without_an_answer_says_nothing_and_a_second_one_does() {
        let (seen, now) = (Seen::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        seen.note_answer(at(0));
        // A long question to an idle directory broke, and another that was under way.
        for began in [10, 5] {
            seen.note_silence(at(began), at(35), false);
            assert!(!seen.is_silent());
        }
        seen.note_answer(at(36));
        seen.note_silence(at(36), at(60), false);
        assert!(!seen.is_silent());
        seen.note_silence(at(61), at(63), false);
        assert!(seen.is_silent());
        seen.note_answer(at(64));
        assert!(!seen.is_silent());
        // One that has just answered is slow.
        seen.note_silence(at(64), at(65), false);
        seen.note_silence(at(66), at(68), false);
        assert!(!seen.is_silent());
        // That nobody is there needs no second sign.
        seen.note_silence(at(68), at(68), true);
        assert!(seen.is_silent());
    }

    #[tokio::test]
    async fn a_directory_known_to_be_silent_is_not_waited_for_by_who_has_an_answer() {
        let (cache, seen) = cache();
        let now = Instant::now();
        cache
            .get(&1, async { answer("here", 0, true) })
            .await
            .unwrap();
        ends(&cache, 1).await;
        seen.note_silence(now, now, true);
        let never = std::future::pending();
        assert_eq!(cache.get(&1, never).await.unwrap(), "here");
        // Who has none asks.
        let other = cache.get(&2, async { answer("there", 0, true) }).await;
        assert_eq!(other.unwrap(), "there");
        seen.note_answer(now);
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
