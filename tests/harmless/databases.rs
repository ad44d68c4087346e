//! Databases as applications have them. Each has, next to the application's tables, a table `log`
//! with an index, whose pages lie among the others: the one that is damaged.

use std::path::Path;

use rusqlite::{Connection, Result, ffi};

use super::application;

/// A kind of database.
pub struct Database {
    pub name: &'static str,
    pub page_size: usize,
    /// `PRAGMA encoding`.
    pub encoding: &'static str,
    /// `PRAGMA auto_vacuum`.
    pub auto_vacuum: &'static str,
    /// Bytes that pages end with and that are not SQLite's.
    pub reserved: u8,
    /// `PRAGMA journal_mode`.
    pub journal: &'static str,
    pub schema: &'static [&'static str],
    /// Carried out in each round; `{n}` is a subquery whose column `i` has the round's numbers,
    /// `{k}` is the page size, `{m}` is the same or, where pages are large, less.
    pub fill: &'static [&'static str],
    /// Carried out in the end.
    pub then: &'static str,
    /// Queries that answer as before, and are carried out as before.
    pub queries: &'static [&'static str],
}

/// As most files are.
const PLAIN: Database = Database {
    name: "",
    page_size: 1024,
    encoding: "UTF-8",
    auto_vacuum: "NONE",
    reserved: 0,
    journal: "DELETE",
    schema: &[],
    fill: &[],
    then: "",
    queries: &[],
};

const ROUNDS: usize = 6;
/// Numbers of a round.
const NUMBERS: usize = 20;

impl Database {
    /// Makes it at `path`.
    pub fn make(&self, path: &Path) -> Result<()> {
        // Locks are of one kind in a process from its first connection on.
        fusion_sqlite::engine::init().expect("this SQLite is fit to be used");
        let connection = Connection::open(path)?;
        application::register(&connection)?;
        if self.reserved > 0 {
            reserve(&connection, self.reserved);
        }
        connection.execute_batch(&format!(
            "PRAGMA page_size = {}; PRAGMA encoding = '{}'; PRAGMA auto_vacuum = {};
             PRAGMA synchronous = OFF; PRAGMA journal_mode = {}; PRAGMA user_version = 10300;
             PRAGMA application_id = 1196444487; PRAGMA writable_schema = OFF; BEGIN;
             CREATE TABLE log(id INTEGER PRIMARY KEY, task TEXT, body TEXT, at REAL);",
            self.page_size, self.encoding, self.auto_vacuum, self.journal
        ))?;
        for sql in self.schema {
            connection.execute_batch(sql)?;
        }
        connection.execute_batch("CREATE INDEX log_task ON log(task, at)")?;
        for round in 0..ROUNDS {
            let (from, to) = (round * NUMBERS + 1, (round + 1) * NUMBERS);
            let numbers = format!(
                "(WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to})
                  SELECT i FROM n)"
            );
            let of = |sql: &str| {
                sql.replace("{n}", &numbers)
                    .replace("{k}", &self.page_size.to_string())
                    .replace("{m}", &self.page_size.min(8192).to_string())
            };
            connection.execute_batch(&of(
                "INSERT INTO log SELECT i, printf('task %s %.*c', i * 7919 % 1000, {k} / 24, 't'),
                   printf('line %s %.*c', i, iif(i % 23, {k} / 9, {k} * 2), 'x'), i / 8.0 FROM {n}",
            ))?;
            for sql in self.fill {
                connection.execute_batch(&of(sql))?;
            }
        }
        connection.execute_batch("DELETE FROM log WHERE id % 17 = 3")?;
        connection.execute_batch(self.then)?;
        connection.execute_batch("COMMIT")?;
        connection.close().map_err(|(_, error)| error)
    }
}

/// Has pages end with bytes that are not SQLite's.
fn reserve(connection: &Connection, bytes: u8) {
    let mut bytes = i32::from(bytes);
    // SAFETY: the connection is open, and this file control reads and writes one int.
    unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut bytes).cast(),
        );
    }
}

/// A library of books: defaults of `ADD COLUMN`, triggers and views over application functions.
pub const LIBRARY: Database = Database {
    name: "library",
    page_size: 4096,
    schema: &[
        "CREATE TABLE books(id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL DEFAULT 'Unknown' COLLATE NOCASE, sort TEXT COLLATE NOCASE,
            timestamp TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
            pubdate TIMESTAMP DEFAULT '2000-01-01 00:00:00', series_index REAL NOT NULL DEFAULT 1.0,
            author_sort TEXT COLLATE NOCASE, path TEXT NOT NULL DEFAULT \"\",
            flags INTEGER NOT NULL DEFAULT 1);
         CREATE TABLE authors(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE,
            sort TEXT COLLATE NOCASE, UNIQUE(name));
         CREATE TABLE books_authors_link(id INTEGER PRIMARY KEY, book INTEGER NOT NULL,
            author INTEGER NOT NULL, UNIQUE(book, author));
         CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, UNIQUE(name));
         CREATE TABLE books_tags_link(id INTEGER PRIMARY KEY, book INTEGER NOT NULL,
            tag INTEGER NOT NULL, UNIQUE(book, tag));
         CREATE TABLE series(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE,
            sort TEXT COLLATE NOCASE, UNIQUE(name));
         CREATE TABLE ratings(id INTEGER PRIMARY KEY, rating INTEGER CHECK(rating > -1 AND rating < 11),
            UNIQUE(rating));
         CREATE TABLE comments(id INTEGER PRIMARY KEY, book INTEGER NOT NULL,
            text TEXT NOT NULL COLLATE NOCASE, UNIQUE(book));
         CREATE TABLE data(id INTEGER PRIMARY KEY, book INTEGER NOT NULL,
            format TEXT NOT NULL COLLATE NOCASE, uncompressed_size INTEGER NOT NULL,
            name TEXT NOT NULL, UNIQUE(book, format));
         CREATE TABLE identifiers(id INTEGER PRIMARY KEY, book INTEGER NOT NULL,
            type TEXT NOT NULL DEFAULT \"isbn\" COLLATE NOCASE, val TEXT NOT NULL COLLATE NOCASE,
            UNIQUE(book, type));
         CREATE TABLE preferences(id INTEGER PRIMARY KEY, key TEXT NOT NULL, val TEXT NOT NULL,
            UNIQUE(key));
         CREATE TABLE metadata_dirtied(id INTEGER PRIMARY KEY, book INTEGER NOT NULL, UNIQUE(book));
         CREATE TABLE custom_columns(id INTEGER PRIMARY KEY AUTOINCREMENT, label TEXT NOT NULL,
            display TEXT DEFAULT \"{}\" NOT NULL, is_multiple BOOL DEFAULT 0 NOT NULL, UNIQUE(label));",
        "CREATE INDEX books_idx ON books(sort COLLATE NOCASE);
         CREATE INDEX authors_idx ON books(author_sort COLLATE NOCASE);
         CREATE INDEX data_idx ON data(book); CREATE INDEX formats_idx ON data(format);",
        "CREATE TRIGGER books_insert_trg AFTER INSERT ON books BEGIN
            UPDATE books SET sort = title_sort(NEW.title) WHERE id = NEW.id; END;
         CREATE TRIGGER books_update_trg AFTER UPDATE ON books BEGIN
            UPDATE books SET sort = title_sort(NEW.title)
             WHERE id = NEW.id AND OLD.title <> NEW.title; END;
         CREATE TRIGGER books_delete_trg AFTER DELETE ON books BEGIN
            DELETE FROM books_authors_link WHERE book = OLD.id;
            DELETE FROM data WHERE book = OLD.id; END;
         CREATE TRIGGER fkc_data_insert BEFORE INSERT ON data BEGIN
            SELECT CASE WHEN (SELECT id FROM books WHERE id = NEW.book) IS NULL
            THEN RAISE(ABORT, 'Foreign key violation: book not in books') END; END;
         CREATE TRIGGER series_insert_trg AFTER INSERT ON series BEGIN
            UPDATE series SET sort = title_sort(NEW.name) WHERE id = NEW.id; END;",
        "CREATE VIEW meta AS SELECT id, title,
            (SELECT sortconcat(link.id, name) FROM books_authors_link AS link
               JOIN authors ON (author = authors.id) WHERE book = books.id) authors,
            (SELECT concat_all(name) FROM tags WHERE tags.id IN
               (SELECT tag FROM books_tags_link WHERE book = books.id)) tags,
            sort, author_sort, isbn, uuid FROM books;
         CREATE VIEW tag_browser_filtered_tags AS SELECT id, name,
            (SELECT count(books_tags_link.id) FROM books_tags_link
              WHERE tag = tags.id AND books_list_filter(book)) count FROM tags;
         CREATE VIEW tag_browser_authors AS SELECT id, name,
            (SELECT count(id) FROM books_authors_link WHERE author = authors.id) count, sort
            FROM authors;",
        // Rows that are older than the columns that come now.
        "INSERT INTO books(title, author_sort, path) VALUES
            ('The First', 'One, A', 'one/first'), ('Second', 'Two, B', 'two/second'),
            ('', NULL, ''), ('The Ünïcode', 'Three', 'x');
         ALTER TABLE books ADD COLUMN isbn TEXT DEFAULT \"\" COLLATE NOCASE;
         ALTER TABLE books ADD COLUMN lccn TEXT DEFAULT \"\" COLLATE NOCASE;
         ALTER TABLE books ADD COLUMN uuid TEXT;
         ALTER TABLE books ADD COLUMN has_cover BOOL DEFAULT 0;
         ALTER TABLE books ADD COLUMN last_modified TIMESTAMP NOT NULL
            DEFAULT \"2000-01-01 00:00:00+00:00\";
         INSERT INTO authors(name) VALUES ('Nobody');
         ALTER TABLE authors ADD COLUMN link TEXT NOT NULL DEFAULT \"\";
         ALTER TABLE authors ADD COLUMN rank REAL DEFAULT 7;
         ALTER TABLE authors ADD COLUMN born DEFAULT -1;
         ALTER TABLE authors ADD COLUMN mark DEFAULT x'00ff';
         ALTER TABLE authors ADD COLUMN note DEFAULT 'it''s';
         ALTER TABLE authors ADD COLUMN known DEFAULT TRUE;
         ALTER TABLE authors ADD COLUMN word DEFAULT [a word];",
    ],
    fill: &[
        "INSERT INTO books(title, author_sort, path, uuid, has_cover)
            SELECT iif(i % 3, 'The ', 'A ') || 'book ' || i, 'Author ' || (i % 31), 'p/' || i, uuid4(),
              i % 2 FROM {n}",
        "INSERT INTO authors(name, sort, link) SELECT 'Author ' || i, 'A' || i, '' FROM {n}",
        "INSERT INTO tags(name) SELECT 'Tag ' || i FROM {n} WHERE i % 4 = 0",
        "INSERT INTO series(name) SELECT 'The series ' || i FROM {n} WHERE i % 5 = 0",
        "INSERT INTO books_authors_link(book, author) SELECT i, i % 31 + 1 FROM {n}",
        "INSERT INTO books_tags_link(book, tag) SELECT i, i % 5 + 1 FROM {n}",
        "INSERT INTO comments(book, text) SELECT i, printf('<p>%.*c</p>', i * 10, 'c') FROM {n}",
        "INSERT INTO data(book, format, uncompressed_size, name)
            SELECT i, iif(i % 2, 'EPUB', 'mobi'), i * 1000, 'n' FROM {n}",
        "INSERT INTO identifiers(book, val) SELECT i, '978' || i FROM {n}",
        "INSERT INTO preferences(key, val) SELECT 'k' || i, '{}' FROM {n}",
        "INSERT OR IGNORE INTO ratings(rating) SELECT i % 11 FROM {n}",
    ],
    then: "INSERT INTO custom_columns(id, label) VALUES (900, 'x'); DELETE FROM custom_columns;
           DELETE FROM books WHERE id > 110; ANALYZE;",
    queries: &[
        "SELECT * FROM meta",
        "SELECT * FROM tag_browser_filtered_tags",
        "SELECT * FROM tag_browser_authors",
        "SELECT id FROM books ORDER BY sort COLLATE NOCASE",
        "SELECT id FROM authors WHERE name = 'author 7'",
        "SELECT isbn, lccn, last_modified FROM books WHERE id < 9",
    ],
    ..PLAIN
};

/// Geography: an R-Tree kept by triggers over application functions.
pub const GEOGRAPHY: Database = Database {
    name: "geography",
    page_size: 4096,
    schema: &[
        "CREATE TABLE gpkg_spatial_ref_sys(srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY,
            organization TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL,
            definition TEXT NOT NULL, description TEXT);
         CREATE TABLE gpkg_contents(table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL,
            identifier TEXT UNIQUE, description TEXT DEFAULT '',
            last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
            min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
            CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
         CREATE TABLE gpkg_geometry_columns(table_name TEXT NOT NULL, column_name TEXT NOT NULL,
            geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL,
            m TINYINT NOT NULL, CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name),
            CONSTRAINT uk_gc_table_name UNIQUE (table_name));
         CREATE TABLE gpkg_extensions(table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL,
            definition TEXT NOT NULL, scope TEXT NOT NULL,
            CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name));
         CREATE TABLE gpkg_ogr_contents(table_name TEXT NOT NULL PRIMARY KEY, feature_count INTEGER);
         CREATE TABLE \"roads\"(\"fid\" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, \"geom\" LINESTRING,
            \"name\" TEXT(80), \"lanes\" MEDIUMINT, \"width\" DOUBLE, toll BOOLEAN);
         CREATE VIRTUAL TABLE \"rtree_roads_geom\" USING rtree(id, minx, maxx, miny, maxy);",
        "CREATE TRIGGER \"rtree_roads_geom_insert\" AFTER INSERT ON \"roads\"
           WHEN (new.\"geom\" NOT NULL AND NOT ST_IsEmpty(NEW.\"geom\"))
         BEGIN
           INSERT OR REPLACE INTO \"rtree_roads_geom\" VALUES (NEW.\"fid\",
             ST_MinX(NEW.\"geom\"), ST_MaxX(NEW.\"geom\"), ST_MinY(NEW.\"geom\"), ST_MaxY(NEW.\"geom\"));
         END;
         CREATE TRIGGER \"rtree_roads_geom_update1\" AFTER UPDATE OF \"geom\" ON \"roads\"
           WHEN OLD.\"fid\" = NEW.\"fid\" AND (NEW.\"geom\" NOTNULL AND NOT ST_IsEmpty(NEW.\"geom\"))
         BEGIN
           INSERT OR REPLACE INTO \"rtree_roads_geom\" VALUES (NEW.\"fid\",
             ST_MinX(NEW.\"geom\"), ST_MaxX(NEW.\"geom\"), ST_MinY(NEW.\"geom\"), ST_MaxY(NEW.\"geom\"));
         END;
         CREATE TRIGGER \"rtree_roads_geom_delete\" AFTER DELETE ON \"roads\" WHEN old.\"geom\" NOT NULL
         BEGIN DELETE FROM \"rtree_roads_geom\" WHERE id = OLD.\"fid\"; END;
         CREATE TRIGGER \"trigger_insert_feature_count_roads\" AFTER INSERT ON \"roads\"
         BEGIN UPDATE gpkg_ogr_contents SET feature_count = feature_count + 1
           WHERE lower(table_name) = lower('roads'); END;
         CREATE TRIGGER 'gpkg_tile_level' BEFORE INSERT ON gpkg_contents FOR EACH ROW
         BEGIN SELECT RAISE(ABORT, 'no identifier') WHERE NEW.identifier = ''; END;
         CREATE VIEW st_spatial_ref_sys AS SELECT srs_name, srs_id FROM gpkg_spatial_ref_sys;
         CREATE VIEW wide_roads AS SELECT fid, ST_MinX(geom) AS x FROM roads WHERE width > 5;
         INSERT INTO gpkg_spatial_ref_sys VALUES ('WGS 84', 4326, 'EPSG', 4326, 'GEOGCS[]', NULL),
           ('Undefined', -1, 'NONE', -1, 'undefined', NULL);
         INSERT INTO gpkg_contents(table_name, data_type, identifier, srs_id)
           VALUES ('roads', 'features', 'roads', 4326);
         INSERT INTO gpkg_geometry_columns VALUES ('roads', 'geom', 'LINESTRING', 4326, 0, 0);
         INSERT INTO gpkg_extensions VALUES ('roads', 'geom', 'gpkg_rtree_index', 'http://x', 'write-only');
         INSERT INTO gpkg_ogr_contents VALUES ('roads', 0);",
    ],
    fill: &["INSERT INTO roads(geom, name, lanes, width, toll)
         SELECT iif(i % 11, ST_Box(i, i + 1.5, i * 2 % 100, i * 2 % 100 + 3), NULL), 'Road ' || i,
           i % 4, i / 10.0, i % 2 FROM {n}"],
    then: "DELETE FROM roads WHERE fid > 116",
    queries: &[
        "SELECT id FROM rtree_roads_geom WHERE maxx >= 20 AND minx <= 40 AND maxy >= 30 AND miny <= 80",
        "SELECT * FROM rtree_roads_geom ORDER BY id",
        "SELECT rtreecheck('rtree_roads_geom')",
        "SELECT * FROM wide_roads",
        "SELECT * FROM st_spatial_ref_sys",
    ],
    ..PLAIN
};

/// Flash cards: an application's collation in keys and UNIQUE indexes.
pub const CARDS: Database = Database {
    name: "cards",
    schema: &[
        "CREATE TABLE notes(id integer PRIMARY KEY, guid text NOT NULL, mid integer NOT NULL,
            mod integer NOT NULL, usn integer NOT NULL, tags text NOT NULL, flds text NOT NULL,
            sfld integer NOT NULL, csum integer NOT NULL, flags integer NOT NULL, data text NOT NULL);
         CREATE TABLE cards(id integer PRIMARY KEY, nid integer NOT NULL, did integer NOT NULL,
            ord integer NOT NULL, due integer NOT NULL, ivl integer NOT NULL, data text NOT NULL);
         CREATE TABLE graves(oid integer NOT NULL, type integer NOT NULL, usn integer NOT NULL,
            PRIMARY KEY (oid, type)) WITHOUT ROWID;
         CREATE TABLE config(KEY text NOT NULL PRIMARY KEY, usn integer NOT NULL, val blob NOT NULL)
            WITHOUT ROWID;
         CREATE TABLE decks(id integer PRIMARY KEY NOT NULL, name text NOT NULL COLLATE unicase,
            common blob NOT NULL);
         CREATE TABLE notetypes(id integer NOT NULL PRIMARY KEY, name text NOT NULL COLLATE unicase,
            config blob NOT NULL);
         CREATE TABLE fields(ntid integer NOT NULL, ord integer NOT NULL,
            name text NOT NULL COLLATE unicase, config blob NOT NULL, PRIMARY KEY (ntid, ord))
            WITHOUT ROWID;
         CREATE TABLE templates(ntid integer NOT NULL, ord integer NOT NULL,
            name text NOT NULL COLLATE unicase, usn integer, config blob NOT NULL,
            PRIMARY KEY (ntid, ord)) WITHOUT ROWID;
         CREATE TABLE tags(tag text NOT NULL PRIMARY KEY COLLATE unicase, usn integer NOT NULL,
            collapsed boolean NOT NULL, config blob NULL) WITHOUT ROWID;
         CREATE TABLE words(lang text COLLATE icu_de, word text COLLATE unicase, n,
            PRIMARY KEY (lang DESC, word)) WITHOUT ROWID;
         CREATE TABLE media(name text PRIMARY KEY COLLATE unicase, sum blob UNIQUE);",
        "CREATE INDEX idx_notes_mid ON notes(mid); CREATE INDEX ix_notes_csum ON notes(csum);
         CREATE INDEX ix_cards_nid ON cards(nid); CREATE INDEX ix_cards_sched ON cards(did, ord, due);
         CREATE UNIQUE INDEX idx_decks_name ON decks(name);
         CREATE UNIQUE INDEX idx_notetypes_name ON notetypes(name);
         CREATE UNIQUE INDEX idx_fields_name_ntid ON fields(name, ntid);
         CREATE UNIQUE INDEX idx_templates_name_ntid ON templates(name, ntid);
         CREATE INDEX idx_templates_usn ON templates(usn);
         CREATE INDEX words_n ON words(n, word COLLATE unicase DESC);
         CREATE INDEX notes_lower ON notes(tags COLLATE unicase) WHERE usn > 0;
         CREATE TRIGGER gone AFTER DELETE ON cards BEGIN
            INSERT OR IGNORE INTO graves VALUES (old.id, 0, -1); END;",
    ],
    fill: &[
        "INSERT INTO notes SELECT 1600000000000 + i * 977, 'g' || i, i % 4, i, i % 3 - 1,
            ' Tag' || (i % 9) || ' ', 'front ' || i || x'1f' || 'back', iif(i % 2, i, 'front ' || i),
            i * 2654435761 % 4294967296, 0, '' FROM {n}",
        "INSERT INTO cards SELECT 1700000000000 + i * 31, 1600000000000 + i * 977, i % 5, 0, i, i, '{}'
            FROM {n}",
        "INSERT INTO config SELECT 'Key' || i, 0, zeroblob(i) FROM {n} WHERE i % 3 = 0",
        "INSERT INTO decks SELECT i, iif(i % 2, 'Ä deck ', 'a Deck ') || i, zeroblob(i) FROM {n}",
        "INSERT INTO notetypes SELECT i, 'Type ' || i, x'0102' FROM {n} WHERE i % 4 = 0",
        "INSERT INTO fields SELECT i % 7, i, iif(i % 2, 'Über', 'über ') || i, zeroblob(20) FROM {n}",
        "INSERT INTO templates SELECT i % 7, i, iif(i % 2, 'KARTE ', 'karte ') || i, i, x'00' FROM {n}",
        "INSERT INTO tags SELECT iif(i % 2, 'ÖL::', 'öl::') || i, 0, 1, NULL FROM {n}",
        "INSERT INTO words SELECT iif(i % 2, 'DE', 'en'), 'Wört' || i, i FROM {n}",
        "INSERT INTO media SELECT 'Bild' || i, zeroblob(i + 1) FROM {n}",
    ],
    then: "DELETE FROM cards WHERE ivl % 10 = 3",
    queries: &[
        "SELECT id FROM decks WHERE name = 'ä DECK 7'",
        "SELECT tag FROM tags WHERE tag >= 'Öl::5'",
        "SELECT * FROM fields WHERE name = 'ÜBER9'",
        "SELECT * FROM words WHERE lang = 'de'",
        "SELECT rowid FROM media WHERE name = 'BILD11'",
        "SELECT id FROM notes WHERE usn > 0 ORDER BY tags COLLATE unicase",
    ],
    ..PLAIN
};

/// Full text with tokenizers of the application.
pub const TOKENIZERS: Database = Database {
    name: "tokenizers",
    schema: &["CREATE TABLE docs(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
         CREATE VIRTUAL TABLE own USING fts5(title, body, tokenize = 'kana', prefix = '2 3');
         CREATE VIRTUAL TABLE of_docs USING fts5(title, body, content = 'docs',
            content_rowid = 'id', tokenize = \"kana\");
         CREATE VIRTUAL TABLE bare USING fts5(body, content = '', tokenize = 'kana');
         CREATE VIRTUAL TABLE four USING fts4(title, body, tokenize=kana);
         CREATE VIRTUAL TABLE four_of_docs USING fts4(content=\"docs\", title, body, tokenize=kana);
         CREATE VIRTUAL TABLE three USING fts3(title, body, tokenize kana);
         CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN
            INSERT INTO of_docs(rowid, title, body) VALUES (new.id, new.title, new.body);
            INSERT INTO four_of_docs(docid, title, body) VALUES (new.id, new.title, new.body); END;
         CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN
            INSERT INTO of_docs(of_docs, rowid, title, body)
              VALUES ('delete', old.id, old.title, old.body); END;
         CREATE TRIGGER docs_bd BEFORE DELETE ON docs BEGIN
            DELETE FROM four_of_docs WHERE docid = old.id; END;"],
    fill: &[
        "INSERT INTO docs SELECT i, 'title ' || i, 'common word' || (i % 13) || ' text' FROM {n}",
        "INSERT INTO own SELECT 'title ' || i, 'common word' || (i % 13) || ' text' FROM {n}",
        "INSERT INTO bare(rowid, body) SELECT i, 'common word' || (i % 13) FROM {n}",
        "INSERT INTO four SELECT 'title ' || i, 'common word' || (i % 13) || ' text' FROM {n}",
        "INSERT INTO three SELECT 'title ' || i, 'common word' || (i % 13) || ' text' FROM {n}",
    ],
    then: "DELETE FROM docs WHERE id % 19 = 0; DELETE FROM own WHERE rowid % 19 = 0;
           DELETE FROM four WHERE docid % 19 = 0;",
    queries: &[
        "SELECT rowid, * FROM own WHERE own MATCH 'word7'",
        "SELECT rowid, rank FROM own WHERE own MATCH 'wor*' ORDER BY rank, rowid",
        "SELECT rowid, title FROM of_docs WHERE of_docs MATCH 'word7'",
        "SELECT rowid FROM bare WHERE bare MATCH 'word7'",
        "SELECT docid, title FROM four WHERE four MATCH 'word7'",
        "SELECT docid, title FROM four_of_docs WHERE four_of_docs MATCH 'word7'",
        "SELECT docid, title FROM three WHERE three MATCH 'word7'",
        "INSERT INTO own(own) VALUES ('integrity-check')",
        "INSERT INTO of_docs(of_docs, rank) VALUES ('integrity-check', 1)",
        "INSERT INTO four(four) VALUES ('integrity-check')",
    ],
    ..PLAIN
};

/// Full text of every kind, with tokenizers that SQLite has.
pub const FULL_TEXT: Database = Database {
    name: "full text",
    schema: &["CREATE TABLE docs(id INTEGER PRIMARY KEY, title TEXT, body TEXT, tag);
         CREATE VIRTUAL TABLE own USING fts5(title, body, tag UNINDEXED, prefix = '2');
         CREATE VIRTUAL TABLE of_docs USING fts5(title, body, content = 'docs', content_rowid = 'id');
         CREATE VIRTUAL TABLE bare USING fts5(title, body, content = '');
         CREATE VIRTUAL TABLE deletable USING fts5(title, body, content = '', contentless_delete = 1);
         CREATE VIRTUAL TABLE lean USING fts5(title, body, detail = none, columnsize = 0,
            tokenize = 'porter unicode61 remove_diacritics 2');
         CREATE VIRTUAL TABLE columns USING fts5(title, body, detail = column);
         CREATE VIRTUAL TABLE parts USING fts5(title, body, tokenize = 'trigram');
         CREATE VIRTUAL TABLE words USING fts5vocab('own', 'row');
         CREATE VIRTUAL TABLE three USING fts3(title, body);
         CREATE VIRTUAL TABLE four USING fts4(title, body, tokenize=porter, prefix=\"2,4\",
            order=desc, notindexed=title);
         CREATE VIRTUAL TABLE four_of_docs USING fts4(content=\"docs\", title, body);
         CREATE VIRTUAL TABLE four_bare USING fts4(content=\"\", title, body);
         CREATE VIRTUAL TABLE tongues USING fts4(body, languageid=\"lid\");
         CREATE VIRTUAL TABLE terms USING fts4aux(four);
         CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN
            INSERT INTO of_docs(rowid, title, body) VALUES (new.id, new.title, new.body); END;
         CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN
            INSERT INTO of_docs(of_docs, rowid, title, body)
              VALUES ('delete', old.id, old.title, old.body); END;
         INSERT INTO own(own, rank) VALUES ('rank', 'bm25(10.0, 5.0)');
         INSERT INTO own(own, rank) VALUES ('automerge', 3);"],
    fill: &[
        "INSERT INTO docs SELECT i, 'title ' || i, 'common word' || (i % 13) || ' née text', i % 3 FROM {n}",
        "INSERT INTO own SELECT title, body, tag FROM docs WHERE id IN {n}",
        "INSERT INTO bare(rowid, title, body) SELECT id, title, body FROM docs WHERE id IN {n}",
        "INSERT INTO deletable(rowid, title, body) SELECT id, title, body FROM docs WHERE id IN {n}",
        "INSERT INTO lean SELECT title, body FROM docs WHERE id IN {n}",
        "INSERT INTO columns SELECT title, body FROM docs WHERE id IN {n}",
        "INSERT INTO parts SELECT title, body FROM docs WHERE id IN {n}",
        "INSERT INTO three SELECT title, body FROM docs WHERE id IN {n}",
        "INSERT INTO four SELECT title, body FROM docs WHERE id IN {n}",
        "INSERT INTO four_of_docs(docid, title, body) SELECT id, title, body FROM docs WHERE id IN {n}",
        "INSERT INTO four_bare(docid, title, body) SELECT id, title, body FROM docs WHERE id IN {n}",
        "INSERT INTO tongues(body, lid) SELECT body, id % 3 FROM docs WHERE id IN {n}",
    ],
    then: "DELETE FROM own WHERE rowid % 19 = 0; DELETE FROM deletable WHERE rowid % 19 = 0;
           DELETE FROM four WHERE docid % 19 = 0;",
    queries: &[
        "SELECT rowid, * FROM own WHERE own MATCH 'word7'",
        "SELECT rowid, rank FROM own WHERE own MATCH 'wor*' ORDER BY rank, rowid",
        "SELECT rowid, title FROM of_docs WHERE of_docs MATCH 'word7'",
        "SELECT rowid FROM bare WHERE bare MATCH 'word7 AND title'",
        "SELECT rowid FROM deletable WHERE deletable MATCH 'word7'",
        "SELECT rowid, * FROM lean WHERE lean MATCH 'nee'",
        "SELECT rowid FROM columns WHERE columns MATCH 'title : title'",
        "SELECT rowid FROM parts WHERE parts MATCH 'ord7'",
        "SELECT * FROM words",
        "SELECT docid, title FROM three WHERE three MATCH 'word7'",
        "SELECT docid, title FROM four WHERE four MATCH 'word7'",
        "SELECT docid, title FROM four_of_docs WHERE four_of_docs MATCH 'word7'",
        "SELECT docid FROM four_bare WHERE four_bare MATCH 'word7'",
        "SELECT docid FROM tongues WHERE tongues MATCH 'word7' AND lid = 1",
        "SELECT * FROM terms",
        "INSERT INTO own(own) VALUES ('integrity-check')",
        "INSERT INTO of_docs(of_docs, rank) VALUES ('integrity-check', 1)",
        "INSERT INTO lean(lean) VALUES ('integrity-check')",
        "INSERT INTO four(four) VALUES ('integrity-check')",
    ],
    ..PLAIN
};

/// Generated columns, indexes, CHECKs and defaults over the application's functions.
pub const COMPUTED: Database = Database {
    name: "computed",
    schema: &["CREATE TABLE pages(id INTEGER PRIMARY KEY, title TEXT NOT NULL,
            slug TEXT GENERATED ALWAYS AS (slug(title)) VIRTUAL, size INT,
            kept TEXT AS (slug(title || '!')) STORED, body, last AS (title_sort(title)));
         CREATE INDEX pages_slug ON pages(slug); CREATE UNIQUE INDEX pages_kept ON pages(kept);
         CREATE INDEX pages_expression ON pages(slug(body), size DESC);
         CREATE INDEX pages_hidden ON pages(size) WHERE is_hidden(size);
         CREATE UNIQUE INDEX pages_both ON pages(title_sort(title), last) WHERE NOT is_hidden(id);
         CREATE TABLE checked(name TEXT CHECK (slug(name) <> ''), n INT CHECK (n > 0 OR is_hidden(n)),
            key TEXT DEFAULT (uuid4()), flag DEFAULT (is_hidden(5)), CHECK (title_sort(name) <> key));
         CREATE TABLE strict_ones(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT NOT NULL,
            b TEXT AS (slug(a)) STORED, c INT DEFAULT 7, d REAL, e BLOB, f ANY) STRICT;
         CREATE INDEX strict_b ON strict_ones(b DESC, c);
         CREATE TABLE keyed(k TEXT, v TEXT AS (slug(k)) VIRTUAL, w AS (title_sort(k)) STORED, x,
            PRIMARY KEY (k DESC)) WITHOUT ROWID;
         CREATE INDEX keyed_v ON keyed(v, x); CREATE INDEX keyed_e ON keyed(slug(x) DESC) WHERE x > 3;
         CREATE TABLE owners(id INTEGER PRIMARY KEY, name TEXT COLLATE unicase UNIQUE,
            alias TEXT COLLATE NOCASE UNIQUE);
         CREATE TABLE folded(a TEXT COLLATE NOCASE PRIMARY KEY, b COLLATE RTRIM UNIQUE) WITHOUT ROWID;
         CREATE VIEW hidden AS SELECT * FROM pages WHERE is_hidden(size);
         CREATE TRIGGER owned AFTER INSERT ON pages WHEN slug(new.title) <> '' BEGIN
            INSERT OR IGNORE INTO owners(name) VALUES (title_sort(new.title)); END;"],
    fill: &[
        "INSERT INTO pages(title, size, body) SELECT iif(i % 2, 'The Page ', 'A Page ') || i, i * 3,
            iif(i % 4, 'Body ' || i, NULL) FROM {n}",
        "INSERT INTO checked(name, n) SELECT 'The ' || i, i FROM {n}",
        "INSERT INTO strict_ones(a, c, d, e, f) SELECT 'A ' || i, -i, i / 7.0, zeroblob(i), i FROM {n}",
        "INSERT INTO folded SELECT iif(i % 2, 'NAME ', 'name ') || i, i || '  ' FROM {n}",
        "INSERT INTO keyed(k, x) SELECT 'Key ' || (i * 7919 % 251), i FROM {n}",
    ],
    then: "DELETE FROM pages WHERE id % 29 = 0; ALTER TABLE checked ADD COLUMN more DEFAULT \"\"
           CHECK (more <> slug('Z')); DELETE FROM strict_ones WHERE id > 100;",
    queries: &[
        "SELECT *, slug, kept, last FROM pages WHERE slug = 'the-page-7'",
        "SELECT id FROM pages WHERE slug(body) = 'body-9'",
        "SELECT id FROM pages WHERE is_hidden(size) ORDER BY size",
        "SELECT *, v, w FROM keyed WHERE v = 'key-10'",
        "SELECT b FROM strict_ones ORDER BY b DESC, c",
        "SELECT * FROM hidden",
        "SELECT * FROM folded WHERE a = 'Name 7' UNION ALL SELECT * FROM folded WHERE b = '8'",
        "SELECT id FROM owners WHERE name = 'PAGE 7, the'",
    ],
    ..PLAIN
};

/// Rows that are marked as deleted leave the full-text index, and stay.
pub const MARKED: Database = Database {
    name: "marked",
    page_size: 4096,
    schema: &["CREATE TABLE memories(id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT, note TEXT,
            deleted_at TEXT);
         CREATE VIRTUAL TABLE memories_fts USING fts5(text, note, content = 'memories',
            content_rowid = 'id');
         CREATE TABLE keyed(key TEXT PRIMARY KEY, value TEXT, dead INT DEFAULT 0);
         CREATE VIRTUAL TABLE keyed_fts USING fts5(value, content = 'keyed');
         CREATE TRIGGER memories_ai AFTER INSERT ON memories WHEN new.deleted_at IS NULL BEGIN
            INSERT INTO memories_fts(rowid, text, note) VALUES (new.id, new.text, new.note); END;
         CREATE TRIGGER memories_au AFTER UPDATE OF deleted_at ON memories
            WHEN old.deleted_at IS NULL AND new.deleted_at IS NOT NULL BEGIN
            INSERT INTO memories_fts(memories_fts, rowid, text, note)
              VALUES ('delete', old.id, old.text, old.note); END;
         CREATE TRIGGER keyed_ai AFTER INSERT ON keyed WHEN NOT new.dead BEGIN
            INSERT INTO keyed_fts(rowid, value) VALUES (new.rowid, new.value); END;"],
    fill: &[
        "INSERT INTO memories(text, note) SELECT 'memory ' || i || ' of word' || (i % 11), 'note' FROM {n}",
        "INSERT INTO keyed SELECT 'k' || i, 'value word' || (i % 11), i % 7 = 0 FROM {n}",
    ],
    then: "UPDATE memories SET deleted_at = 'now' WHERE id % 5 = 0",
    queries: &[
        "SELECT rowid FROM memories_fts WHERE memories_fts MATCH 'word3'",
        "SELECT rowid FROM keyed_fts WHERE keyed_fts MATCH 'word3'",
        "INSERT INTO memories_fts(memories_fts) VALUES ('integrity-check')",
    ],
    ..PLAIN
};

/// Keys, indexes, names and values of every kind that SQLite has.
const KEYS: Database = Database {
    name: "keys",
    schema: &[
        "CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT);
         CREATE TABLE descending(id INTEGER PRIMARY KEY DESC, a, b TEXT);
         CREATE TABLE hides(rowid TEXT, oid INT, _rowid_ REAL, a);
         CREATE TABLE hides_some(rowid TEXT, a INTEGER PRIMARY KEY, oid);
         CREATE TABLE backwards(a TEXT COLLATE NOCASE, b INT, c BLOB, d,
            PRIMARY KEY (b DESC, a)) WITHOUT ROWID;
         CREATE TABLE twice(a, b, c, PRIMARY KEY (a COLLATE RTRIM, a, b DESC)) WITHOUT ROWID;
         CREATE TABLE typed(id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, n ANY) STRICT;
         CREATE TABLE typed_key(k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID;
         CREATE TABLE empty(a, b UNIQUE, PRIMARY KEY (a)); CREATE TABLE empty_key(a PRIMARY KEY) WITHOUT ROWID;
         CREATE TABLE values_of(r REAL, n NUMERIC, i INTEGER, t TEXT, b BLOB, any);
         CREATE TABLE \"quoted \"\"name\"\" and 'more'\"(\"a \"\"b\"\"\", [c d], `e``f`, 'g''h');
         CREATE TABLE \"größe 查询 🚀\"(\"schlüssel\" TEXT PRIMARY KEY, \"wert\");
         CREATE TABLE \"select\"(\"from\" INT, \"where\" TEXT UNIQUE, \"group\");
         CREATE TABLE \"\"(a); CREATE TABLE \"t1\"(x); CREATE TABLE i1(\"\" TEXT, b);
         CREATE TABLE parents(id TEXT PRIMARY KEY); CREATE TABLE children(
            id INTEGER PRIMARY KEY, parent TEXT REFERENCES parents(id) ON DELETE CASCADE);
         CREATE TABLE long_rows(id INTEGER PRIMARY KEY, body BLOB, tail TEXT);
         CREATE TABLE lost_and_found(a, b); CREATE TABLE carried_0_1(a);
         CREATE TABLE copied AS SELECT 1 AS a, 'x' AS b;",
        "CREATE INDEX counted_a ON counted(a DESC);
         CREATE INDEX descending_ab ON descending(b COLLATE NOCASE DESC, a);
         CREATE UNIQUE INDEX descending_partial ON descending(a) WHERE a IS NOT NULL;
         CREATE INDEX hides_all ON hides(rowid, oid, _rowid_);
         CREATE INDEX backwards_c ON backwards(c, a COLLATE BINARY DESC);
         CREATE INDEX backwards_part ON backwards(d) WHERE d > 10;
         CREATE INDEX backwards_expr ON backwards(length(c), upper(a) COLLATE RTRIM);
         CREATE INDEX twice_c ON twice(c, b); CREATE INDEX typed_all ON typed(n, b, t, r, i);
         CREATE INDEX values_all ON values_of(r, n, i, t, b, any);
         CREATE INDEX values_any ON values_of(any DESC, typeof(any));
         CREATE INDEX \"index of \"\"quoted\"\"\" ON \"quoted \"\"name\"\" and 'more'\"([c d], \"a \"\"b\"\"\");
         CREATE INDEX \"größe\" ON \"größe 查询 🚀\"(\"wert\" COLLATE NOCASE);
         CREATE INDEX long_tail ON long_rows(tail, body);
         CREATE VIEW \"a view\" AS SELECT \"from\", \"where\" FROM \"select\";
         CREATE TRIGGER \"a trigger\" AFTER INSERT ON \"select\" WHEN 0 BEGIN SELECT 1; END;
         CREATE TRIGGER instead INSTEAD OF INSERT ON \"a view\" BEGIN
            INSERT INTO \"select\"(\"from\") VALUES (new.\"from\"); END;
         INSERT INTO values_of SELECT v, v, v, v, v, v FROM (SELECT 9e999 AS v UNION ALL
            SELECT -9e999 UNION ALL SELECT -0.0 UNION ALL SELECT 0.0 UNION ALL
            SELECT 9223372036854775807 UNION ALL SELECT -9223372036854775808 UNION ALL
            SELECT 9007199254740993 UNION ALL SELECT 1e300 UNION ALL SELECT 5e-324 UNION ALL
            SELECT NULL UNION ALL SELECT '' UNION ALL SELECT x'' UNION ALL SELECT zeroblob(3) UNION ALL
            SELECT 'a' || char(0) || 'b' UNION ALL SELECT CAST(x'00' AS TEXT) UNION ALL
            SELECT CAST(x'd800' AS TEXT) UNION ALL SELECT CAST(x'fffe41' AS TEXT) UNION ALL
            SELECT '9223372036854775808' UNION ALL SELECT ' 12 ' UNION ALL SELECT '1e3' UNION ALL
            SELECT 3.0 UNION ALL SELECT 123456789012345680.0 UNION ALL SELECT 4294967296.5);
         INSERT INTO values_of(any) VALUES (9e999 - 9e999), (9e999 * 0);
         INSERT INTO \"\" VALUES (1), (NULL); INSERT INTO t1 VALUES ('t'); INSERT INTO i1 VALUES ('i', 2);
         INSERT INTO \"quoted \"\"name\"\" and 'more'\" VALUES (1, 2, 3, 4), ('a', 'b', 'c', 'd');
         INSERT INTO lost_and_found VALUES ('its own', 1); INSERT INTO carried_0_1 VALUES (1);
         INSERT INTO counted(id, a) VALUES (-5, 'negative'), (9223372036854775000, 'huge');
         DELETE FROM counted WHERE id > 0; UPDATE sqlite_sequence SET seq = 5000 WHERE name = 'counted';
         INSERT INTO hides_some(rowid, a, oid) VALUES ('x', -9223372036854775808, 1),
            ('y', 9223372036854775807, 2), ('z', 0, 3);",
    ],
    fill: &[
        "INSERT INTO counted(a) SELECT 'a' || (i % 17) FROM {n}",
        "INSERT INTO descending SELECT i * i, iif(i % 3, i, NULL), iif(i % 2, 'B', 'b') || i FROM {n}",
        "INSERT INTO hides SELECT 'r' || i, i, i / 2.0, i * 5 FROM {n}",
        "INSERT INTO backwards SELECT 'Name ' || i, i % 9, zeroblob(i % 40), i FROM {n}",
        "INSERT INTO twice SELECT 'x' || (i % 5), i, 'c ' || (i % 3) FROM {n}",
        "INSERT INTO typed(id, i, r, t, b) SELECT -i, i, i, 't' || i, zeroblob(i) FROM {n}",
        "INSERT INTO typed_key SELECT 'k' || (i * 7919 % 251), iif(i % 2, i, 'text') FROM {n}",
        "INSERT INTO values_of SELECT i / 3.0, i * 1e10, i, char(i), zeroblob(i % 3), -i FROM {n}",
        "INSERT INTO \"größe 查询 🚀\" SELECT 'ß' || i, '查询' || (i % 7) FROM {n}",
        "INSERT INTO \"select\" SELECT i, 'w' || i, NULL FROM {n}",
        "INSERT INTO parents SELECT 'p' || i FROM {n}; INSERT INTO children(parent) SELECT 'p' || i FROM {n}",
        "INSERT INTO long_rows SELECT i * 100003, CAST(printf('%.*c', i * {m} / 3, 'b') AS BLOB),
            printf('%.*c', {m}, char(65 + i % 26)) FROM {n} WHERE i % 6 = 0",
    ],
    then: "DELETE FROM descending WHERE a % 7 = 1; ANALYZE;",
    queries: &[
        "SELECT * FROM descending WHERE a > 50 ORDER BY a",
        "SELECT * FROM backwards ORDER BY b DESC, a",
        "SELECT a FROM backwards WHERE d > 10 ORDER BY d",
        "SELECT a FROM backwards WHERE length(c) = 7",
        "SELECT * FROM hides WHERE rowid = 'r9'",
        "SELECT * FROM \"größe 查询 🚀\" ORDER BY wert COLLATE NOCASE",
        "SELECT rowid, typeof(any) FROM values_of ORDER BY any DESC",
        "SELECT id FROM long_rows ORDER BY tail, body",
        "SELECT * FROM \"a view\"",
    ],
    ..PLAIN
};

/// The same in files of every format.
pub const FORMATS: &[Database] = &[
    KEYS,
    Database { name: "keys full", auto_vacuum: "FULL", ..KEYS },
    Database { name: "keys incremental", auto_vacuum: "INCREMENTAL", encoding: "UTF-16le", ..KEYS },
    Database { name: "keys utf-16be", encoding: "UTF-16be", page_size: 4096, ..KEYS },
    Database { name: "keys 512", page_size: 512, reserved: 8, ..KEYS },
    Database { name: "keys 65536", page_size: 65_536, ..KEYS },
    Database { name: "keys wal", journal: "WAL", page_size: 4096, reserved: 32, ..KEYS },
];

/// Applications'.
pub const APPLICATIONS: &[Database] = &[
    LIBRARY,
    GEOGRAPHY,
    CARDS,
    TOKENIZERS,
    FULL_TEXT,
    COMPUTED,
    MARKED,
    Database { name: "cards utf-16le", encoding: "UTF-16le", auto_vacuum: "FULL", ..CARDS },
    Database { name: "tokenizers utf-16be", encoding: "UTF-16be", page_size: 512, ..TOKENIZERS },
    Database {
        name: "computed utf-16le",
        encoding: "UTF-16le",
        page_size: 512,
        reserved: 12,
        ..COMPUTED
    },
    Database {
        name: "geography wal",
        journal: "WAL",
        page_size: 512,
        auto_vacuum: "INCREMENTAL",
        ..GEOGRAPHY
    },
];
