//! Keys in the data folder: one file and its copy, each whole or not there, readable by its owner only.
//!
//! Both are written before a change counts. Each says how many changes came before it, so the newer one counts if a
//! change was broken off between them. One that is damaged or lost is made up for by the other; if neither can be
//! read, nobody knows which keys there are.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::ring::{KeyRecord, KeyScope, TenantName};
use super::text::KeyId;
use crate::server::auth::{give_to_owner_of_folder, write_private};

/// Where keys are kept.
#[derive(Debug, Clone)]
pub struct KeyFile {
    folder: PathBuf,
}

/// Why the keys cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("key file {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("key file {} is damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
}

/// What the files hold.
#[derive(Debug)]
pub struct KeptKeys {
    pub records: Vec<KeyRecord>,
    /// Changes that came before.
    pub generation: u64,
    /// What is wrong with one of the copies; the other one counts.
    pub spoilt: Option<KeyFileError>,
}

impl KeyFile {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// `None` where no key was ever kept.
    ///
    /// # Errors
    /// There are files, and none that can be read and is whole.
    pub fn read(&self) -> Result<Option<KeptKeys>, KeyFileError> {
        Ok(self.read_newest()?.map(|(Generation { number, records }, spoilt)| KeptKeys {
            records,
            generation: number,
            spoilt,
        }))
    }

    /// Changes the keys and writes them. Nobody else changes them meanwhile, from whatever process.
    ///
    /// # Errors
    /// As `change` says, or the files cannot be read or written. Then the change may be in force nevertheless if it got
    /// as far as the first of the two files.
    pub fn change<T, E: From<KeyFileError>>(
        &self,
        change: impl FnOnce(&mut Vec<KeyRecord>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.lock()?;
        let newest = self.read_newest()?.map(|(newest, _)| newest);
        let mut keys = newest.unwrap_or(Generation { number: 0, records: Vec::new() });
        let done = change(&mut keys.records)?;
        keys.number += 1;
        self.write(&keys)?;
        Ok(done)
    }

    /// Why a server that runs as the folder's owner cannot read the files, where that is so.
    ///
    /// # Errors
    /// Folder and files cannot be looked at.
    #[cfg(unix)]
    pub fn unreadable(&self) -> Result<Option<String>, KeyFileError> {
        use std::os::unix::fs::MetadataExt;

        let owner = |name| {
            let path = self.folder.join(name);
            fs::metadata(&path).map(|seen| seen.uid()).map_err(|source| KeyFileError::Io { path, source })
        };
        let (server, keys) = (owner("")?, owner(FILES[0])?);
        Ok((server != keys).then(|| {
            let folder = self.folder.display();
            format!(
                "the keys in {folder} belong to user {keys}, the folder to user {server}: a server that runs as user \
                 {server} cannot read them, and goes on with those that it read last; chown them"
            )
        }))
    }

    /// Elsewhere nobody can tell.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub fn unreadable(&self) -> Result<Option<String>, KeyFileError> {
        Ok(None)
    }

    /// What tells that the files are other ones than before, without reading them.
    pub(super) fn sighting(&self) -> Sighting {
        Sighting(FILES.map(|name| fs::metadata(self.folder.join(name)).ok().map(|seen| Seen::of(&seen))))
    }

    fn read_newest(&self) -> Result<Option<(Generation, Option<KeyFileError>)>, KeyFileError> {
        let mut newest: Option<Generation> = None;
        let mut spoilt = None;
        let mut unread = None;
        for name in FILES {
            let path = self.folder.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => match Generation::parse(&text) {
                    Ok(found) if newest.as_ref().is_none_or(|newest| newest.number < found.number) => {
                        newest = Some(found);
                    }
                    Ok(_) => {}
                    Err(problem) => spoilt = Some(KeyFileError::Damaged { path, problem }),
                },
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    spoilt = Some(KeyFileError::Damaged { path, problem: error.to_string() });
                }
                Err(source) => unread = Some(KeyFileError::Io { path, source }),
            }
        }
        // What cannot be read may be whole.
        match (newest, unread.or(spoilt)) {
            (Some(newest), spoilt) => Ok(Some((newest, spoilt))),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    fn write(&self, keys: &Generation) -> Result<(), KeyFileError> {
        let text = keys.to_text();
        for name in FILES {
            let path = self.folder.join(name);
            write_private(&path, text.as_bytes()).map_err(|source| KeyFileError::Io { path, source })?;
        }
        // A revoked key must not come back with a power cut.
        #[cfg(unix)]
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(|source| self.io_error("", source))?;
        Ok(())
    }

    /// Held until it is dropped.
    fn lock(&self) -> Result<File, KeyFileError> {
        let create = || {
            create_private_folder(&self.folder)?;
            let mut options = fs::OpenOptions::new();
            options.create(true).truncate(false).write(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let path = self.folder.join(LOCK);
            let file = options.open(&path)?;
            give_to_owner_of_folder(&file, &path);
            file.lock()?;
            Ok(file)
        };
        create().map_err(|source| self.io_error(LOCK, source))
    }

    fn io_error(&self, name: &str, source: io::Error) -> KeyFileError {
        KeyFileError::Io { path: self.folder.join(name), source }
    }
}

fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// When and where the files were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting([Option<Seen>; FILES.len()]);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Of the file's node: its number, and when it last changed.
    #[cfg(unix)]
    node: (u64, i64, i64),
}

impl Seen {
    fn of(found: &fs::Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            bytes: found.len(),
            modified: found.modified().ok(),
            #[cfg(unix)]
            node: (found.ino(), found.ctime(), found.ctime_nsec()),
        }
    }
}

/// The keys after so many changes.
struct Generation {
    number: u64,
    records: Vec<KeyRecord>,
}

/// As they are written, below a line with what the file is and its check.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeys {
    generation: u64,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKey {
    id: String,
    hash: String,
    tenant: String,
    scopes: BTreeSet<KeyScope>,
    created_ms: Option<u64>,
    expires_ms: Option<u64>,
    revoked_ms: Option<u64>,
}

impl Generation {
    fn to_text(&self) -> String {
        let keys = self.records.iter().map(StoredKey::from).collect();
        let body = serde_json::json!(StoredKeys { generation: self.number, keys });
        let body = format!("{body:#}\n");
        format!("{FORMAT}{}\n{body}", blake3::hash(body.as_bytes()).to_hex())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (first, body) = text.split_once('\n').ok_or("it has no second line")?;
        let check =
            first.strip_prefix(FORMAT).ok_or_else(|| format!("its first line is not {FORMAT:?} and a check"))?;
        if check != blake3::hash(body.as_bytes()).to_hex().as_str() {
            return Err("its check is wrong".to_owned());
        }
        let stored: StoredKeys = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let records = stored.keys.into_iter().map(KeyRecord::try_from).collect::<Result<_, _>>()?;
        Ok(Self { number: stored.generation, records })
    }
}

impl From<&KeyRecord> for StoredKey {
    fn from(record: &KeyRecord) -> Self {
        let KeyRecord { id, hash, tenant, scopes, created_ms, expires_ms, revoked_ms } = record;
        Self {
            id: id.to_string(),
            hash: hash.to_string(),
            tenant: tenant.as_str().to_owned(),
            scopes: scopes.clone(),
            created_ms: *created_ms,
            expires_ms: *expires_ms,
            revoked_ms: *revoked_ms,
        }
    }
}

impl TryFrom<StoredKey> for KeyRecord {
    type Error = String;

    fn try_from(stored: StoredKey) -> Result<Self, String> {
        let StoredKey { id, hash, tenant, scopes, created_ms, expires_ms, revoked_ms } = stored;
        Ok(Self {
            id: KeyId::parse(&id).ok_or_else(|| format!("{id:?} is no key's id"))?,
            hash: blake3::Hash::from_hex(&hash).map_err(|error| format!("the hash of key {id}: {error}"))?,
            tenant: TenantName::parse(&tenant).ok_or_else(|| format!("{tenant:?} is no tenant's name"))?,
            scopes,
            created_ms,
            expires_ms,
            revoked_ms,
        })
    }
}

const FILES: [&str; 2] = ["keys", "keys.copy"];

const LOCK: &str = "keys.lock";

/// How the first line begins.
const FORMAT: &str = "nearhit keys 1 ";

#[cfg(test)]
mod tests {
    use super::super::text::KeyText;
    use super::*;

    fn record(tenant: &str) -> KeyRecord {
        let key = KeyText::random().expect("a key");
        KeyRecord {
            id: key.id(),
            hash: key.hash(),
            tenant: TenantName::parse(tenant).expect("a name"),
            scopes: KeyScope::ALL.into(),
            created_ms: Some(1),
            expires_ms: None,
            revoked_ms: None,
        }
    }

    fn add(file: &KeyFile, tenant: &str) {
        let added = file.change(|records| {
            records.push(record(tenant));
            Ok::<_, KeyFileError>(())
        });
        added.expect("a change");
    }

    /// The tenants of the kept keys, and whether a copy was spoilt.
    fn kept(file: &KeyFile) -> Option<(Vec<String>, bool)> {
        let kept = file.read().expect("readable")?;
        let tenants = kept.records.iter().map(|record| record.tenant.as_str().to_owned()).collect();
        Some((tenants, kept.spoilt.is_some()))
    }

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn either_copy_makes_up_for_the_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path().join("new"));
        assert_eq!(kept(&file), None);
        add(&file, "a");
        add(&file, "b");
        assert_eq!(kept(&file), Some((texts(&["a", "b"]), false)));
        let paths = FILES.map(|name| folder.path().join("new").join(name));
        let whole = fs::read(&paths[0]).expect("a file");
        assert_eq!(fs::read(&paths[1]).expect("a file"), whole);
        for path in &paths {
            for spoilt in [&b""[..], b"\xff", &whole[..whole.len() / 2], &[&whole[..], b" "].concat(), &flipped(&whole)]
            {
                fs::write(path, spoilt).expect("a file");
                assert_eq!(kept(&file), Some((texts(&["a", "b"]), true)));
            }
            fs::remove_file(path).expect("a file");
            assert_eq!(kept(&file), Some((texts(&["a", "b"]), false)));
            fs::write(path, &whole).expect("a file");
        }

        // A change that got as far as the first file counts, whichever file that is.
        add(&file, "c");
        let newer = fs::read(&paths[0]).expect("a file");
        for (old, new) in [(0, 1), (1, 0)] {
            fs::write(&paths[old], &whole).expect("a file");
            fs::write(&paths[new], &newer).expect("a file");
            assert_eq!(kept(&file), Some((texts(&["a", "b", "c"]), false)));
        }
        add(&file, "d");
        assert_eq!(fs::read(&paths[0]).expect("a file"), fs::read(&paths[1]).expect("a file"));
    }

    #[test]
    fn with_both_copies_damaged_nobody_knows_the_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path());
        add(&file, "a");
        let paths = FILES.map(|name| folder.path().join(name));
        let whole = fs::read(&paths[0]).expect("a file");
        fs::write(&paths[0], flipped(&whole)).expect("a file");
        fs::write(&paths[1], &whole[1..]).expect("a file");
        assert!(matches!(file.read(), Err(KeyFileError::Damaged { .. })));
        assert!(file.change(|_| Ok::<_, KeyFileError>(())).is_err(), "a change would lose the others");
        fs::remove_file(&paths[1]).expect("a file");
        assert!(matches!(file.read(), Err(KeyFileError::Damaged { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_them() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("new");
        add(&KeyFile::new(&inner), "a");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        for name in [FILES[0], FILES[1], LOCK] {
            assert_eq!(mode(&inner.join(name)), 0o600, "{name}");
        }
    }

    /// Whoever writes them: another user's server is to read them.
    #[cfg(unix)]
    #[test]
    fn they_belong_to_the_owner_of_the_folder() {
        use std::os::unix::fs::{MetadataExt, chown};

        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path());
        let owner = |path: &Path| fs::metadata(path).map(|seen| (seen.uid(), seen.gid())).expect("a file");
        let (uid, gid) = owner(folder.path());
        // Only root may give the folder away.
        let others = if uid == 0 { (4_711, 4_712) } else { (uid, gid) };
        chown(folder.path(), Some(others.0), Some(others.1)).expect("given away");
        add(&file, "a");
        for name in [FILES[0], FILES[1], LOCK] {
            assert_eq!(owner(&folder.path().join(name)).0, others.0, "{name}");
        }
        assert_eq!(file.unreadable().expect("files"), None);
        if uid == 0 {
            chown(folder.path().join(FILES[0]), Some(0), None).expect("taken");
            let problem = file.unreadable().expect("files").expect("a problem");
            assert!(problem.contains("belong to user 0, the folder to user 4711"), "{problem}");
        }
    }

    #[test]
    fn every_change_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(folder.path());
        let mut before = file.sighting();
        for change in 0..100 {
            add(&file, "a");
            let after = file.sighting();
            assert_ne!(before, after, "change {change}");
            before = after;
        }
        fs::remove_file(folder.path().join(FILES[1])).expect("a file");
        assert_ne!(before, file.sighting());
    }

    fn flipped(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    }
}
