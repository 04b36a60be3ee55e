// Starts telegram-test-api on a free port of 127.0.0.1, and prints its address.
const http = require('http');
const TelegramServer = require('telegram-test-api');

// Its own start() takes no port 0: only its handlers are used.
const server = http.createServer(new TelegramServer().webServer);
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
