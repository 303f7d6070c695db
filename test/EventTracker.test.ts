import { layerMemory } from "../src/EventTracker.js"
import { eventTrackerContract } from "../src/testing.js"

eventTrackerContract("EventTracker.layerMemory", layerMemory)
