//! Keys of nearhit's own: who may call, as which tenant, and for what.
//!
//! They come from the configuration and from the data folder, where `nearhit key` writes them; a running server takes
//! up what changed there. Once there were keys, calls without one are refused, also when the keys are lost.

mod date;
mod file;
mod ring;
mod text;

use std::sync::Arc;

use parking_lot::RwLock;

pub use self::date::{date_text, days_to};
use self::file::Sighting;
pub use self::file::{KeptKeys, KeyFile, KeyFileError};
pub use self::ring::{KeyRecord, KeyRing, KeyScope, TENANT_NAME_PROBLEM, TenantName};
pub(super) use self::text::PREFIX;
pub use self::text::{KeyId, KeyText};

/// The keys of a server, as they are in force now.
pub struct Keys {
    configured: Vec<KeyRecord>,
    file: KeyFile,
    in_force: RwLock<Arc<KeysInForce>>,
}

/// Keys at one time.
pub(super) struct KeysInForce {
    ring: KeyRing,
    /// Calls need a key, also if there is none that is valid.
    is_required: bool,
    /// There was a file.
    is_kept: bool,
    /// Why keys that there were are not in force.
    problem: Option<String>,
    seen: Sighting,
}

impl Keys {
    /// `configured` are the configuration's; `is_required` refuses calls without a key even if there are no keys.
    pub fn open(configured: Vec<KeyRecord>, file: KeyFile, is_required: bool) -> Self {
        let seen = file.sighting();
        let in_force = KeysInForce::read(&configured, &file, seen, is_required, false);
        in_force.log(None);
        Self { configured, file, in_force: RwLock::new(Arc::new(in_force)) }
    }

    /// Takes up what changed in the data folder since the last time. It reads the disk.
    pub(super) fn refresh(&self) {
        let before = self.in_force();
        let seen = self.file.sighting();
        if seen == before.seen && before.problem.is_none() {
            return;
        }
        let after = KeysInForce::read(&self.configured, &self.file, seen, before.is_required, before.is_kept);
        after.log(Some(&before));
        *self.in_force.write() = Arc::new(after);
    }

    pub(super) fn in_force(&self) -> Arc<KeysInForce> {
        Arc::clone(&self.in_force.read())
    }
}

impl KeysInForce {
    fn read(configured: &[KeyRecord], file: &KeyFile, seen: Sighting, is_required: bool, was_kept: bool) -> Self {
        let (kept, problem) = match file.read() {
            Ok(Some(KeptKeys { records, spoilt })) => {
                if let Some(error) = spoilt {
                    tracing::warn!(%error, "a copy of the keys is not whole; the other one counts");
                }
                (Some(records), None)
            }
            Ok(None) if was_kept => (None, Some("the key file is gone".to_owned())),
            Ok(None) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let is_kept = was_kept || kept.is_some() || problem.is_some();
        // A key that was revoked in the folder stays so.
        let ring = KeyRing::new(kept.into_iter().flatten().chain(configured.iter().cloned()));
        let is_required = is_required || is_kept || !ring.is_empty();
        Self { ring, is_required, is_kept, problem, seen }
    }

    fn log(&self, before: Option<&Self>) {
        match (&self.problem, before.map(|before| &before.problem)) {
            (Some(problem), Some(Some(same))) if problem == same => {}
            (Some(problem), _) => tracing::error!(problem, "keys are lost: calls with them are refused"),
            (None, Some(_)) => tracing::info!("took up other keys"),
            (None, None) => {}
        }
    }

    /// Whether calls need a key.
    pub(super) fn is_required(&self) -> bool {
        self.is_required
    }

    /// Whether the admin listener needs one: where there ever was a key for it, or nobody knows.
    pub(super) fn is_required_for_admin(&self) -> bool {
        self.ring.has_admin_key() || self.problem.is_some()
    }

    /// The record of the key that was shown, if it is valid.
    pub(super) fn check(&self, shown: &[u8], now_ms: u64) -> Option<&KeyRecord> {
        self.ring.check(shown, now_ms)
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &KeyText, scope: KeyScope) -> KeyRecord {
        KeyRecord {
            id: key.id(),
            hash: key.hash(),
            tenant: TenantName::parse("acme").expect("a name"),
            scopes: [scope].into(),
            created_ms: None,
            expires_ms: None,
            revoked_ms: None,
        }
    }

    fn is_accepted(keys: &Keys, key: &KeyText) -> bool {
        keys.in_force().check(key.reveal().as_bytes(), 0).is_some()
    }

    /// From none to some, and from then on whatever happens to the files opens nothing again.
    #[test]
    fn lost_keys_let_nobody_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path());
        let (configured, kept) = (KeyText::random().expect("a key"), KeyText::random().expect("a key"));
        let open = |configured: Vec<KeyRecord>, is_required: bool| Keys::open(configured, file.clone(), is_required);

        assert!(open(Vec::new(), true).in_force().is_required());
        let keys = open(Vec::new(), false);
        assert!(!keys.in_force().is_required() && !keys.in_force().is_required_for_admin());
        let added = file.change(|records| {
            records.push(record(&kept, KeyScope::Read));
            Ok::<_, KeyFileError>(())
        });
        added.expect("a change");
        assert!(!is_accepted(&keys, &kept));
        keys.refresh();
        assert!(is_accepted(&keys, &kept) && keys.in_force().is_required());
        assert!(!keys.in_force().is_required_for_admin(), "it is no key for the admin listener");

        let both = open(vec![record(&configured, KeyScope::Admin)], false);
        assert!(is_accepted(&both, &kept) && is_accepted(&both, &configured));
        assert!(both.in_force().is_required_for_admin());

        for lose in
            [|name: &std::path::Path| std::fs::write(name, "?"), |name: &std::path::Path| std::fs::remove_file(name)]
        {
            for name in ["keys", "keys.copy"] {
                lose(&folder.path().join(name)).expect("a file");
            }
            for keys in [&keys, &both] {
                keys.refresh();
                assert!(!is_accepted(keys, &kept) && keys.in_force().is_required());
                assert!(keys.in_force().is_required_for_admin() && keys.in_force().problem().is_some());
            }
            assert!(is_accepted(&both, &configured), "the configuration's keys are not lost");
        }

        let again = file.change(|records| {
            records.push(record(&kept, KeyScope::Read));
            Ok::<_, KeyFileError>(())
        });
        again.expect("a change");
        keys.refresh();
        assert!(is_accepted(&keys, &kept) && keys.in_force().problem().is_none());
    }

    #[test]
    fn a_revoked_key_stays_revoked_if_it_is_configured_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path());
        let key = KeyText::random().expect("a key");
        let revoked = file.change(|records| {
            records.push(KeyRecord { revoked_ms: Some(1), ..record(&key, KeyScope::Read) });
            Ok::<_, KeyFileError>(())
        });
        revoked.expect("a change");
        assert!(!is_accepted(&Keys::open(vec![record(&key, KeyScope::Read)], file, false), &key));
    }
}
