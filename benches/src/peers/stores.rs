//! Stores of bytes that make each change durable: one record is put, and is on the disk when the call returns.
//!
//! What must hold: each runs with the durability that survives power loss, and each is arranged as is best for it when many
//! threads put at once.
#![allow(
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "peers; a measurement stops when one of them does not do as it should"
)]

use std::path::Path;

use parking_lot::Mutex;
use trustkeep::NodeId;

use crate::workload::Terms;

/// A store of bytes.
pub trait Store: Sync {
    /// What it is called in tables.
    const NAME: &'static str;

    /// A new one in this directory, which holds the records of this size.
    fn filled(size: u32, dir: &Path) -> Self;

    /// Puts one record; durable when this returns.
    fn put(&self, peer: NodeId, terms: Terms);

    /// What is there.
    fn get(&self, peer: NodeId) -> Option<Vec<u8>>;
}

/// redb, with its default of immediate durability.
#[derive(Debug)]
pub struct Redb(redb::Database);

const REDB_TABLE: redb::TableDefinition<'_, u32, &[u8]> = redb::TableDefinition::new("trusted");

impl Store for Redb {
    const NAME: &'static str = "redb";

    fn filled(size: u32, dir: &Path) -> Self {
        let database = redb::Database::create(dir.join("redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(REDB_TABLE).unwrap();
            for (peer, terms) in super::maps::entries(size) {
                table.insert(peer.get(), terms.bytes().as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
        Self(database)
    }

    fn put(&self, peer: NodeId, terms: Terms) {
        let transaction = self.0.begin_write().unwrap();
        transaction.open_table(REDB_TABLE).unwrap().insert(peer.get(), terms.bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
    }

    fn get(&self, peer: NodeId) -> Option<Vec<u8>> {
        use redb::ReadableDatabase as _;
        let table = self.0.begin_read().unwrap().open_table(REDB_TABLE).unwrap();
        table.get(peer.get()).unwrap().map(|value| value.value().to_vec())
    }
}

/// fjall, with everything synced behind each put.
pub struct Fjall {
    keyspace: fjall::Keyspace,
    trusted: fjall::PartitionHandle,
}

impl core::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Fjall")
    }
}

impl Store for Fjall {
    const NAME: &'static str = "fjall";

    fn filled(size: u32, dir: &Path) -> Self {
        let keyspace = fjall::Config::new(dir.join("fjall")).open().unwrap();
        let trusted = keyspace.open_partition("trusted", fjall::PartitionCreateOptions::default()).unwrap();
        for (peer, terms) in super::maps::entries(size) {
            trusted.insert(peer.get().to_be_bytes(), terms.bytes()).unwrap();
        }
        keyspace.persist(fjall::PersistMode::SyncAll).unwrap();
        Self { keyspace, trusted }
    }

    fn put(&self, peer: NodeId, terms: Terms) {
        self.trusted.insert(peer.get().to_be_bytes(), terms.bytes()).unwrap();
        // The data is enough: fjall takes the space of its journal ahead.
        self.keyspace.persist(fjall::PersistMode::SyncData).unwrap();
    }

    fn get(&self, peer: NodeId) -> Option<Vec<u8>> {
        self.trusted.get(peer.get().to_be_bytes()).unwrap().map(|value| value.to_vec())
    }
}

/// SQLite with a write-ahead log and synchronous=FULL. One connection for all threads: with one for each they would wait
/// by sleeping.
#[derive(Debug)]
pub struct Sqlite(Mutex<rusqlite::Connection>);

const SQLITE_PUT: &str = "INSERT OR REPLACE INTO trusted (id, terms) VALUES (?1, ?2)";

impl Store for Sqlite {
    const NAME: &'static str = "SQLite, WAL, FULL";

    fn filled(size: u32, dir: &Path) -> Self {
        let mut connection = rusqlite::Connection::open(dir.join("sqlite")).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        connection.execute_batch("CREATE TABLE trusted (id INTEGER PRIMARY KEY, terms BLOB NOT NULL)").unwrap();
        let transaction = connection.transaction().unwrap();
        for (peer, terms) in super::maps::entries(size) {
            transaction.prepare_cached(SQLITE_PUT).unwrap().execute((peer.get(), terms.bytes())).unwrap();
        }
        transaction.commit().unwrap();
        Self(Mutex::new(connection))
    }

    fn put(&self, peer: NodeId, terms: Terms) {
        let connection = self.0.lock();
        connection.prepare_cached(SQLITE_PUT).unwrap().execute((peer.get(), terms.bytes())).unwrap();
    }

    fn get(&self, peer: NodeId) -> Option<Vec<u8>> {
        let connection = self.0.lock();
        let mut select = connection.prepare_cached("SELECT terms FROM trusted WHERE id = ?1").unwrap();
        let mut rows = select.query([peer.get()]).unwrap();
        rows.next().unwrap().map(|row| row.get(0).unwrap())
    }
}

/// LMDB, with its default of a sync behind each transaction.
#[derive(Debug)]
pub struct Lmdb {
    env: heed::Env,
    trusted: heed::Database<heed::types::U32<heed::byteorder::BigEndian>, heed::types::Bytes>,
}

impl Store for Lmdb {
    const NAME: &'static str = "LMDB";

    #[expect(unsafe_code, reason = "heed asks its caller to swear that no other process cuts the mapped file")]
    fn filled(size: u32, dir: &Path) -> Self {
        let dir = dir.join("lmdb");
        std::fs::create_dir(&dir).unwrap();
        let bytes = 64 * 1024 * 1024 + size as usize * 4096;
        // SAFETY: the directory was just made by this process, and nobody else is told of it.
        let env = unsafe { heed::EnvOpenOptions::new().map_size(bytes).open(&dir) }.unwrap();
        let mut transaction = env.write_txn().unwrap();
        let trusted = env.create_database(&mut transaction, None).unwrap();
        let lmdb = Self { env: env.clone(), trusted };
        for (peer, terms) in super::maps::entries(size) {
            lmdb.trusted.put(&mut transaction, &peer.get(), &terms.bytes()).unwrap();
        }
        transaction.commit().unwrap();
        lmdb
    }

    fn put(&self, peer: NodeId, terms: Terms) {
        let mut transaction = self.env.write_txn().unwrap();
        self.trusted.put(&mut transaction, &peer.get(), &terms.bytes()).unwrap();
        transaction.commit().unwrap();
    }

    fn get(&self, peer: NodeId) -> Option<Vec<u8>> {
        let transaction = self.env.read_txn().unwrap();
        self.trusted.get(&transaction, &peer.get()).unwrap().map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{id, record};

    fn keeps_what_is_put<S: Store>() {
        let dir = crate::directory::temporary(None).unwrap();
        let store = S::filled(100, dir.path());
        let old = Terms::of(&record(7, crate::key(), 1));
        assert_eq!(store.get(id(7)), Some(old.bytes().to_vec()), "{}", S::NAME);
        assert_eq!(store.get(id(100)), None, "{}", S::NAME);
        let new = Terms::of(&record(7, crate::key(), 9));
        std::thread::scope(|scope| {
            for number in [7, 100, 101] {
                let store = &store;
                scope.spawn(move || store.put(id(number), new));
            }
        });
        assert_eq!([7, 100, 101].map(|number| store.get(id(number))), [7; 3].map(|_| Some(new.bytes().to_vec())));
    }

    #[test]
    fn every_store_keeps_what_is_put() {
        keeps_what_is_put::<Redb>();
        keeps_what_is_put::<Fjall>();
        keeps_what_is_put::<Sqlite>();
        keeps_what_is_put::<Lmdb>();
    }

    #[test]
    fn sqlite_runs_as_durably_as_it_says() {
        let dir = crate::directory::temporary(None).unwrap();
        let Sqlite(connection) = Sqlite::filled(1, dir.path());
        let pragma = |name| connection.lock().pragma_query_value(None, name, |row| row.get::<_, String>(0));
        assert_eq!(pragma("journal_mode").unwrap(), "wal");
        let synchronous = connection.lock().pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0));
        assert_eq!(synchronous.unwrap(), 2, "2 is FULL");
    }
}
