import { layer } from "../../src/EventTracker/Sqlite.js"
import { eventTrackerContract } from "../../src/testing.js"
import { overNewFile } from "../fixtures/sqlite.js"

eventTrackerContract("Sqlite.layer", (options) => overNewFile(layer(options)))
