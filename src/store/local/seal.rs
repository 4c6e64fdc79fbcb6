//! An entry as sealed pieces, and back.
//!
//! The bytes of an entry (head, then the compressed body) are cut into pieces that fit a row, each sealed with
//! AES-128-GCM under the key of the entry's slot; the vector is a piece of its own. A slot's key seals one entry only,
//! so a piece's number serves as its nonce. Opening a piece proves that it is whole, and that it belongs to this entry,
//! this slot and this place among the pieces.

use parking_lot::Mutex;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use super::keys::Key;
use super::vectors::Slot;
use crate::decision::{CacheName, Entry, EntryId, Life, Partition, Tenant};
use crate::store::{StoreError, entry_bytes};

/// What a start reads of every entry, and every lookup needs before the body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) tenant: Tenant,
    pub(super) cache: CacheName,
    pub(super) life: Life,
    pub(super) place: Option<(Partition, u32)>,
    /// See [`super::labels`].
    pub(super) labels: u64,
    /// Uncompressed bytes of the entry.
    pub(super) bytes: u64,
    /// Tokens that serving it saves.
    pub(super) tokens: u32,
    /// Length of the body before compression; zero where it is not compressed.
    inflated: u32,
}

/// An entry in the form in which it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) id: EntryId,
    pub(super) slot: Slot,
    pub(super) pieces: Vec<Vec<u8>>,
    /// The vector as f16, sealed.
    pub(super) vector: Option<Vec<u8>>,
}

/// A piece, sealed or about to be, and what it belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) id: EntryId,
    pub(super) slot: Slot,
    pub(super) number: u16,
    /// Pieces that the entry has.
    pub(super) count: u16,
    pub(super) bytes: &'a [u8],
}

impl Piece<'_> {
    fn lock(&self, cipher: &LessSafeKey) -> Result<Vec<u8>, StoreError> {
        let mut bytes = self.bytes.to_vec();
        let sealed = cipher.seal_in_place_append_tag(nonce(self.number), Aad::from(self.binding()), &mut bytes);
        sealed.map_err(unwritable)?;
        Ok(bytes)
    }

    fn unlock(&self, cipher: &LessSafeKey) -> Result<Vec<u8>, Damaged> {
        let mut bytes = self.bytes.to_vec();
        let opened = cipher.open_in_place(nonce(self.number), Aad::from(self.binding()), &mut bytes);
        let length = opened.map_err(|_| Damaged)?.len();
        bytes.truncate(length);
        Ok(bytes)
    }

    fn binding(&self) -> [u8; 22] {
        let mut bytes = [0; 22];
        bytes[..16].copy_from_slice(self.id.as_bytes());
        bytes[16..20].copy_from_slice(&self.slot.to_le_bytes());
        bytes[20..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }
}

impl Sealed {
    /// Bytes that it takes in rows and log.
    pub(super) fn bytes(&self) -> u32 {
        let all = self.pieces.iter().chain(&self.vector).map(Vec::len).sum::<usize>();
        u32::try_from(all).unwrap_or(u32::MAX)
    }
}

/// Seals and opens; keeps the compressors, which are costly to make.
#[derive(Default)]
pub(super) struct Sealer {
    compressors: Mutex<Vec<zstd::bulk::Compressor<'static>>>,
    decompressors: Mutex<Vec<zstd::bulk::Decompressor<'static>>>,
}

impl Sealer {
    pub(super) fn seal(
        &self,
        key: &Key,
        slot: Slot,
        entry: &mut Entry,
        labels: u64,
    ) -> Result<(Head, Sealed), StoreError> {
        let mut head = Head {
            tenant: entry.tenant.clone(),
            cache: entry.cache.clone(),
            life: entry.life,
            place: entry.place.as_ref().map(|(partition, vector)| (*partition, vector.dimensions() as u32)),
            labels,
            bytes: entry_bytes(entry),
            tokens: tokens(entry),
            inflated: 0,
        };
        // The vector goes its own way.
        let place = entry.place.take();
        let body = postcard::to_stdvec(entry).map_err(unwritable);
        entry.place = place;
        let mut body = body?;
        if body.len() >= WORTH_COMPRESSING {
            let smaller = self.compress(&body).map_err(unwritable)?;
            if smaller.len() < body.len() {
                head.inflated = u32::try_from(body.len()).map_err(unwritable)?;
                body = smaller;
            }
        }
        let mut plain = postcard::to_stdvec(&head).map_err(unwritable)?;
        plain.extend_from_slice(&body);
        let cipher = cipher(key)?;
        let count = u16::try_from(plain.len().div_ceil(PIECE_BYTES)).map_err(unwritable)?;
        let pieces = plain.chunks(PIECE_BYTES).zip(0..count);
        let id = entry.id;
        let pieces = pieces.map(|(bytes, number)| Piece { id, slot, number, count, bytes }.lock(&cipher));
        let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
        let vector = match &entry.place {
            Some((_, vector)) => Some(self.seal_vector(key, id, slot, vector.as_slice())?),
            None => None,
        };
        Ok((head, Sealed { id, slot, pieces, vector }))
    }

    /// The head, from the first piece.
    pub(super) fn head(&self, key: &Key, first: Piece<'_>) -> Result<Head, Damaged> {
        let plain = first.unlock(&cipher(key).map_err(|_| Damaged)?)?;
        postcard::take_from_bytes(&plain).map(|(head, _)| head).map_err(|_| Damaged)
    }

    /// The entry, without its vector.
    pub(super) fn entry(
        &self,
        key: &Key,
        id: EntryId,
        slot: Slot,
        pieces: &[impl AsRef<[u8]>],
    ) -> Result<(Head, Entry), Damaged> {
        let cipher = cipher(key).map_err(|_| Damaged)?;
        let count = u16::try_from(pieces.len()).map_err(|_| Damaged)?;
        let mut plain = Vec::with_capacity(pieces.len() * PIECE_BYTES);
        for (piece, number) in pieces.iter().zip(0..count) {
            plain.extend_from_slice(&Piece { id, slot, number, count, bytes: piece.as_ref() }.unlock(&cipher)?);
        }
        let (head, body): (Head, &[u8]) = postcard::take_from_bytes(&plain).map_err(|_| Damaged)?;
        let entry: Entry = match head.inflated {
            0 => postcard::from_bytes(body),
            length => postcard::from_bytes(&self.inflate(body, length as usize)?),
        }
        .map_err(|_| Damaged)?;
        if entry.id != id {
            return Err(Damaged);
        }
        Ok((head, entry))
    }

    /// The vector of `dimensions` values.
    pub(super) fn vector(
        &self,
        key: &Key,
        id: EntryId,
        slot: Slot,
        dimensions: usize,
        sealed: &[u8],
    ) -> Result<Vec<f32>, Damaged> {
        let piece = Piece { id, slot, number: VECTOR, count: 0, bytes: sealed };
        let plain = piece.unlock(&cipher(key).map_err(|_| Damaged)?)?;
        if plain.len() != 2 * dimensions {
            return Err(Damaged);
        }
        Ok(plain.chunks_exact(2).map(|pair| half::f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect())
    }

    /// The vector's piece. Of a vector that was read back it is the same to the bit.
    pub(super) fn seal_vector(
        &self,
        key: &Key,
        id: EntryId,
        slot: Slot,
        vector: &[f32],
    ) -> Result<Vec<u8>, StoreError> {
        Piece { id, slot, number: VECTOR, count: 0, bytes: &to_f16(vector) }.lock(&cipher(key)?)
    }

    /// Whether a piece is what it was when it was written.
    pub(super) fn is_whole(&self, key: &Key, piece: Piece<'_>) -> bool {
        cipher(key).is_ok_and(|cipher| piece.unlock(&cipher).is_ok())
    }

    fn compress(&self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let spare = self.compressors.lock().pop();
        let mut compressor = match spare {
            Some(compressor) => compressor,
            None => zstd::bulk::Compressor::new(COMPRESSION_LEVEL)?,
        };
        let smaller = compressor.compress(body);
        self.compressors.lock().push(compressor);
        smaller
    }

    fn inflate(&self, body: &[u8], length: usize) -> Result<Vec<u8>, Damaged> {
        let spare = self.decompressors.lock().pop();
        let mut decompressor = match spare {
            Some(decompressor) => decompressor,
            None => zstd::bulk::Decompressor::new().map_err(|_| Damaged)?,
        };
        let inflated = decompressor.decompress(body, length);
        self.decompressors.lock().push(decompressor);
        inflated.map_err(|_| Damaged)
    }
}

/// A piece is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// As the provider counted them, or about four bytes to a token.
fn tokens(entry: &Entry) -> u32 {
    let counted = entry.answer.usage.map(|usage| usage.input.saturating_add(usage.output));
    u32::try_from(counted.unwrap_or((entry.text.len() + entry.answer.body.len()) as u64 / 4)).unwrap_or(u32::MAX)
}

fn to_f16(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
}

fn cipher(key: &Key) -> Result<LessSafeKey, StoreError> {
    UnboundKey::new(&AES_128_GCM, key).map(LessSafeKey::new).map_err(unwritable)
}

fn nonce(number: u16) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..2].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn unwritable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("an entry cannot be written: {error}"))
}

/// Plain bytes of a piece: sealed, framed and sixteen to a leaf it stays far below the 128 KiB above which sled writes
/// to a file that it never syncs.
const PIECE_BYTES: usize = 4000;

/// The number of the vector's piece.
const VECTOR: u16 = u16::MAX;

/// Shorter bodies gain nothing.
const WORTH_COMPRESSING: usize = 200;

/// zstd's fastest regular level: 2 KB of English shrink to 60 % in about 10 us.
const COMPRESSION_LEVEL: i32 = 1;
