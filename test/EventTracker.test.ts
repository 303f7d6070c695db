import { layerMemory } from "../src/EventTracker.js"
import { eventTrackerContract } from "./fixtures/eventTrackerContract.js"

eventTrackerContract("layerMemory", layerMemory)
