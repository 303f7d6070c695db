/**
 * The parts of the Model Context Protocol that a proxy needs: JSON-RPC, revisions and their headers, the messages that
 * it reads or sends itself, and the classification of requests.
 */
export { checkRevision, classify, type RequestClass } from "./Protocol/classify.js"
export {
  type Body,
  type Message,
  parseBody,
  parseMessages,
  RequestId,
  requestId,
  requestIds
} from "./Protocol/JsonRpc.js"
export {
  cancelledNotification,
  cancelledRequestId,
  InitializeResult,
  isInitialize,
  isInitializeResult,
  methodLabel,
  progressToken,
  progressTokens,
  sessionRestartedNotification,
  toolsChangedNotification
} from "./Protocol/Messages.js"
export {
  type Era,
  hasBatches,
  hasPrimingEvents,
  isModernRevision,
  LAST_EVENT_ID,
  legacyRevisions,
  modernHeaders,
  PROTOCOL_VERSION,
  PROTOCOL_VERSION_META,
  requestedRevision,
  SESSION_ID,
  unsupportedRevision
} from "./Protocol/Revision.js"
