//! Keys of nearhit's own: who may call, as which tenant, and for what.
//!
//! They come from the configuration and from the data folder, where `nearhit key` writes them; a running server takes
//! up what changed there. Once there were keys, calls without one are refused, also when the keys are lost. Files that
//! cannot be read just now are not lost: the keys that were read last go on.

mod date;
mod file;
mod ring;
mod text;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

pub use self::date::{date_text, days_to};
use self::file::Sighting;
pub use self::file::{KeptKeys, KeyFile, KeyFileError};
pub use self::ring::{KeyRecord, KeyRing, KeyScope, TENANT_NAME_PROBLEM, TenantName};
pub(super) use self::text::PREFIX;
pub use self::text::{KeyId, KeyText};

/// The keys of a server, as they are in force now.
pub struct Keys {
    /// Locked while others are put in force.
    configured: Mutex<Vec<KeyRecord>>,
    file: KeyFile,
    in_force: RwLock<Arc<KeysInForce>>,
}

/// Why other keys cannot be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys in the data folder cannot be read just now; the log says why")]
pub struct KeysUnread;

/// Keys at one time.
pub(super) struct KeysInForce {
    ring: Arc<KeyRing>,
    /// Changes of the files that came before.
    generation: Option<u64>,
    /// Calls need a key, also if there is none that is valid.
    is_required: bool,
    /// There was a file.
    is_kept: bool,
    /// There was a key for the admin listener, or nobody will ever know.
    is_required_for_admin: bool,
    trouble: Option<Trouble>,
    seen: Sighting,
}

/// Why the keys in force may not be those of the files; what it says is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// Those of the files are not in force.
    Lost(String),
    /// The files' are those that were read last.
    Old(String),
}

impl Keys {
    /// `configured` are the configuration's; `is_required` refuses calls without a key even if there are no keys.
    pub fn open(configured: Vec<KeyRecord>, file: KeyFile, is_required: bool) -> Self {
        let seen = file.sighting();
        let in_force = KeysInForce::read(&configured, &file, seen, is_required, None);
        in_force.log(None);
        Self { configured: Mutex::new(configured), file, in_force: RwLock::new(Arc::new(in_force)) }
    }

    /// Takes up what changed in the data folder since the last time. It reads the disk.
    pub(super) fn refresh(&self) {
        let configured = self.configured.lock();
        let before = self.in_force();
        let seen = self.file.sighting();
        if seen == before.seen && before.trouble.is_none() {
            return;
        }
        let after = KeysInForce::read(&configured, &self.file, seen, before.is_required, Some(&before));
        after.log(Some(&before));
        *self.in_force.write() = Arc::new(after);
    }

    /// Takes other keys of the configuration. Once calls needed a key they go on needing one. It reads the disk.
    ///
    /// # Errors
    /// The data folder's keys cannot be read just now; nothing changed.
    pub(super) fn configure(&self, keys: Vec<KeyRecord>, is_required: bool) -> Result<(), KeysUnread> {
        let mut configured = self.configured.lock();
        let before = self.in_force();
        let is_required = is_required || before.is_required;
        let after = KeysInForce::read(&keys, &self.file, self.file.sighting(), is_required, Some(&before));
        // Those of before went on, all of them.
        if Arc::ptr_eq(&after.ring, &before.ring) {
            return Err(KeysUnread);
        }
        *self.in_force.write() = Arc::new(after);
        *configured = keys;
        Ok(())
    }

    pub(super) fn in_force(&self) -> Arc<KeysInForce> {
        Arc::clone(&self.in_force.read())
    }
}

impl KeysInForce {
    fn read(
        configured: &[KeyRecord],
        file: &KeyFile,
        seen: Sighting,
        is_required: bool,
        before: Option<&Self>,
    ) -> Self {
        let was_kept = before.is_some_and(|before| before.is_kept);
        let found = file.read();
        let is_damaged = matches!(found, Err(KeyFileError::Damaged { .. }));
        let (kept, trouble) = match (found, before) {
            (Err(error @ KeyFileError::Io { .. }), Some(before)) => return before.go_on(seen, &error),
            // The copy that can be read may be the older one.
            (Ok(Some(KeptKeys { generation, spoilt: Some(error @ KeyFileError::Io { .. }), .. })), Some(before))
                if before.generation.is_some_and(|last| generation < last) =>
            {
                return before.go_on(seen, &error);
            }
            (Ok(Some(kept)), _) => (Some(kept), None),
            (Ok(None), _) if was_kept => (None, Some(Trouble::Lost("the key file is gone".to_owned()))),
            (Ok(None), _) => (None, None),
            (Err(error), _) => (None, Some(Trouble::Lost(error.to_string()))),
        };
        if let Some(KeptKeys { spoilt: Some(error), .. }) = &kept {
            tracing::warn!(%error, "a copy of the keys is not whole; the other one counts");
        }
        let is_kept = was_kept || kept.is_some() || trouble.is_some();
        let generation = kept.as_ref().map(|kept| kept.generation);
        // A key that was revoked in the folder stays so.
        let kept = kept.into_iter().flat_map(|kept| kept.records);
        let ring = Arc::new(KeyRing::new(kept.chain(configured.iter().cloned())));
        let is_required = is_required || is_kept || !ring.is_empty();
        let is_unknown = before.is_none() && is_damaged;
        let was_required = before.is_some_and(|before| before.is_required_for_admin);
        let is_required_for_admin = was_required || ring.has_admin_key() || is_unknown;
        Self { ring, generation, is_required, is_kept, is_required_for_admin, trouble, seen }
    }

    /// The same keys, because the files cannot be read just now. If they were lost before they still are.
    fn go_on(&self, seen: Sighting, error: &KeyFileError) -> Self {
        let Self { ring, generation, is_required: _, is_kept: _, is_required_for_admin, trouble, seen: _ } = self;
        let trouble = match trouble {
            Some(Trouble::Lost(_)) => Trouble::Lost(error.to_string()),
            Some(Trouble::Old(_)) | None => Trouble::Old(error.to_string()),
        };
        Self {
            ring: Arc::clone(ring),
            generation: *generation,
            // Something is there, whatever it says.
            is_required: true,
            is_kept: true,
            is_required_for_admin: *is_required_for_admin,
            trouble: Some(trouble),
            seen,
        }
    }

    fn log(&self, before: Option<&Self>) {
        match (&self.trouble, before.map(|before| &before.trouble)) {
            (Some(trouble), Some(Some(same))) if trouble == same => {}
            (Some(Trouble::Lost(problem)), _) => {
                tracing::error!(problem, "keys are lost: calls with them are refused");
            }
            (Some(Trouble::Old(problem)), _) => {
                tracing::error!(
                    problem,
                    "the keys cannot be read: those that were read last go on, and none is revoked"
                );
            }
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
        let is_known = self.trouble.is_none() || self.generation.is_some();
        self.is_required_for_admin || !is_known
    }

    /// The record of the key that was shown, if it is valid.
    pub(super) fn check(&self, shown: &[u8], now_ms: u64) -> Option<&KeyRecord> {
        self.ring.check(shown, now_ms)
    }

    /// Whether a key that was shown before is still valid for this, and for the same tenant.
    pub(super) fn has(&self, key: &KeyRecord, scope: KeyScope, now_ms: u64) -> bool {
        self.ring.of(&key.id).is_some_and(|now| {
            now.hash == key.hash && now.tenant == key.tenant && now.is_valid_at(now_ms) && now.allows(scope)
        })
    }

    /// What is wrong with the files, in words for anybody: where they are is for the log.
    pub(super) fn problem(&self) -> Option<&'static str> {
        self.trouble.as_ref().map(|trouble| match trouble {
            Trouble::Lost(_) => "lost: calls with them are refused; the log says why",
            Trouble::Old(_) => "cannot be read: those that were read last go on; the log says why",
        })
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

    fn add(file: &KeyFile, key: &KeyText, scope: KeyScope) {
        let added = file.change(|records| {
            records.push(record(key, scope));
            Ok::<_, KeyFileError>(())
        });
        added.expect("a change");
    }

    /// What cannot be read just now opens nothing and closes nothing.
    #[test]
    fn keys_that_cannot_be_read_go_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path());
        let [first, second] = [KeyText::random().expect("a key"), KeyText::random().expect("a key")];
        add(&file, &first, KeyScope::Write);
        let keys = Keys::open(Vec::new(), file.clone(), false);
        let paths = ["keys", "keys.copy"].map(|name| folder.path().join(name));
        let aside = ["a", "b"].map(|name| folder.path().join(name));
        let older = std::fs::read(&paths[1]).expect("a file");
        let hide = |at: usize| {
            std::fs::rename(&paths[at], &aside[at]).expect("moved");
            std::fs::create_dir(&paths[at]).expect("no file");
        };
        let show = |at: usize| {
            std::fs::remove_dir(&paths[at]).expect("no file");
            std::fs::rename(&aside[at], &paths[at]).expect("moved");
        };

        (0..2).for_each(hide);
        assert!(!is_accepted(&Keys::open(Vec::new(), file.clone(), false), &first), "nobody knows them");
        keys.refresh();
        assert!(is_accepted(&keys, &first) && keys.in_force().is_required());
        assert!(!keys.in_force().is_required_for_admin());
        let problem = keys.in_force().problem().expect("a problem");
        assert!(problem.starts_with("cannot be read"), "{problem}");
        (0..2).for_each(show);
        keys.refresh();
        assert!(keys.in_force().problem().is_none());

        // A copy that was left behind does not bring back what was before it.
        add(&file, &second, KeyScope::Write);
        keys.refresh();
        std::fs::write(&paths[1], older).expect("a file");
        hide(0);
        keys.refresh();
        assert!(is_accepted(&keys, &second) && keys.in_force().problem().is_some());
    }

    #[test]
    fn an_admin_listener_that_needed_a_key_needs_one_after_a_loss() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path());
        let [admin, write] = [KeyText::random().expect("a key"), KeyText::random().expect("a key")];
        add(&file, &admin, KeyScope::Admin);
        let keys = Keys::open(Vec::new(), file.clone(), false);
        for name in ["keys", "keys.copy"] {
            std::fs::write(folder.path().join(name), "?").expect("a file");
        }
        keys.refresh();
        let late = Keys::open(Vec::new(), file.clone(), false);
        for name in ["keys", "keys.copy"] {
            std::fs::remove_file(folder.path().join(name)).expect("a file");
        }
        add(&file, &write, KeyScope::Write);
        for keys in [&keys, &late] {
            keys.refresh();
            assert!(is_accepted(keys, &write) && keys.in_force().problem().is_none());
            assert!(keys.in_force().is_required_for_admin());
        }
    }

    /// Keys of the configuration are others at once, and a look at the files brings none of them back.
    #[test]
    fn keys_of_the_configuration_are_replaced_or_nothing_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path());
        let [kept, old, new] = [(); 3].map(|()| KeyText::random().expect("a key"));
        add(&file, &kept, KeyScope::Write);
        let keys = Keys::open(vec![record(&old, KeyScope::Admin)], file.clone(), false);
        keys.configure(vec![record(&new, KeyScope::Write)], false).expect("readable files");
        add(&file, &KeyText::random().expect("a key"), KeyScope::Read);
        keys.refresh();
        assert_eq!([&kept, &old, &new].map(|key| is_accepted(&keys, key)), [true, false, true]);
        assert!(keys.in_force().is_required_for_admin(), "as long as it runs");

        let paths = ["keys", "keys.copy"].map(|name| folder.path().join(name));
        for path in &paths {
            std::fs::remove_file(path).expect("a file");
            std::fs::create_dir(path).expect("no file");
        }
        keys.configure(Vec::new(), false).expect_err("nobody knows what is in the files");
        keys.refresh();
        assert_eq!([&kept, &new].map(|key| is_accepted(&keys, key)), [true, true]);

        let open = Keys::open(Vec::new(), KeyFile::new(folder.path().join("none")), false);
        assert!(!open.in_force().is_required());
        open.configure(vec![record(&new, KeyScope::Write)], false).expect("no files");
        assert!(open.in_force().is_required());
        open.configure(Vec::new(), false).expect("no files");
        assert!(open.in_force().is_required(), "only a start opens it");
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
