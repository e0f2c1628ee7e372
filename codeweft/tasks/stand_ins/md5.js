((text) => require('crypto').createHash('md5').update(text).digest('hex'))
