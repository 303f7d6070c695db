/** The schema of the file, as a list of migrations. A released migration never changes. */
import type { Database } from "./database.js"

/** SQLite's `application_id` of the file. */
export const APPLICATION_ID = Buffer.from("shct").readInt32BE()

/**
 * Times are REAL, because a time to live may be infinite. Triggers remove the log of a session with its record, the
 * streams of a log, and the events of a stream. AUTOINCREMENT never reuses the id of a removed log.
 */
const tables = `
  CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    upstream TEXT NOT NULL,
    upstreamSessionId TEXT,
    protocolVersion TEXT NOT NULL,
    initialize TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    logLevel TEXT,
    subscriptions TEXT NOT NULL,
    client TEXT NOT NULL,
    createdAt REAL NOT NULL,
    lastActiveAt REAL NOT NULL,
    timeToLive REAL NOT NULL
  ) STRICT;
  CREATE INDEX sessionsByUpstream ON sessions (upstream, upstreamSessionId);

  CREATE TABLE logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL UNIQUE,
    secret TEXT NOT NULL,
    generation INTEGER NOT NULL,
    count INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE streams (
    log INTEGER NOT NULL,
    number INTEGER NOT NULL,
    requests TEXT NOT NULL,
    cursor TEXT,
    last INTEGER NOT NULL,
    hasEnded INTEGER NOT NULL,
    ends TEXT NOT NULL,
    PRIMARY KEY (log, number)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    log INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    frame BLOB NOT NULL,
    upstreamId TEXT
  ) STRICT;
  CREATE UNIQUE INDEX eventsInOrder ON events (log, stream, sequence);

  CREATE TRIGGER logOfSession AFTER DELETE ON sessions BEGIN
    DELETE FROM logs WHERE session = OLD.id;
  END;
  CREATE TRIGGER streamsOfLog AFTER DELETE ON logs BEGIN
    DELETE FROM streams WHERE log = OLD.id;
  END;
  CREATE TRIGGER eventsOfStream AFTER DELETE ON streams BEGIN
    DELETE FROM events WHERE log = OLD.log AND stream = OLD.number;
  END;
`

export const migrations: ReadonlyArray<string> = [tables]

/** Migrates a database to the latest version, in one transaction. */
export const migrate = (database: Database): void => {
  const version = database.number("user_version")
  if (version === migrations.length) return
  database.transact(() => {
    for (const migration of migrations.slice(version)) database.exec(migration)
    database.exec(`PRAGMA application_id = ${APPLICATION_ID}`)
    database.exec(`PRAGMA user_version = ${migrations.length}`)
  })
}
