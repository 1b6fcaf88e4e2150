// The page for unknown addresses.

import { localizePage, message } from "./messages.js";

localizePage();
document.title = message("missing.title");
