// Checks each HAR file against the JSON schema of HAR 1.2.
const fs = require("fs");
const validate = require("har-validator");

(async () => {
  let entries = 0;
  const files = process.argv.slice(2);
  for (const path of files) {
    const har = JSON.parse(fs.readFileSync(path, "utf8"));
    try {
      await validate.har(har);
    } catch (error) {
      console.error(`${path}: ${error.message} ${JSON.stringify(error.errors)}`);
      process.exit(1);
    }
    entries += har.log.entries.length;
  }
  if (files.length < 60 || entries < 120) {
    console.error(`only ${files.length} files with ${entries} entries: too few to show anything`);
    process.exit(1);
  }
  console.log(`har-validator: ${files.length} files with ${entries} entries fit HAR 1.2`);
})();
