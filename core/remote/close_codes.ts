/** WebSocket close codes of the protocol (4000-4999 are free for applications, RFC 6455 7.4.2). */

/** The client broke the protocol. */
export const CLOSE_PROTOCOL = 4400;
/** The token may not do this, or not any more. */
export const CLOSE_DENIED = 4401;
/** The client reads too slowly; it may resume where it stood. */
export const CLOSE_SLOW = 4408;
/** Another connection of this device took over. */
export const CLOSE_REPLACED = 4409;
