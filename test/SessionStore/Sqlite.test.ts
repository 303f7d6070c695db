import { layer } from "../../src/SessionStore/Sqlite.js"
import { sessionStoreContract } from "../../src/testing.js"
import { overNewFile } from "../fixtures/sqlite.js"

sessionStoreContract("Sqlite.layer", overNewFile(layer))
