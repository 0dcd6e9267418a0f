"""Names of findings in chest X-rays and mammograms: the words that a vocabulary knows beside those of the data sets."""

from __future__ import annotations

CHEST = (
    *("abscess", "air bronchogram", "air space opacity", "airspace disease", "alveolar edema", "aortic aneurysm"),
    *("aortic calcification", "aortic elongation", "apical cap", "apical scarring", "aspergilloma", "aspiration"),
    *("atelectasis", "azygos lobe", "bacterial pneumonia", "basal atelectasis", "bilateral pleural effusion"),
    *("blunted costophrenic angle", "bone fracture", "bone metastases", "breast implant", "bronchiectasis"),
    *("bronchial wall thickening", "bronchopneumonia", "bulla", "calcified granuloma", "calcified lymph node"),
    *("calcified pleural plaque", "cardiac pacemaker", "cardiomegaly", "cavitation", "central venous catheter"),
    *("cervical rib", "chest tube", "chronic obstructive pulmonary disease", "clavicle fracture", "collapsed lobe"),
    *("congestive heart failure", "consolidation", "coronary artery calcification", "covid 19 pneumonia", "cyst"),
    *("degenerative spine disease", "dextrocardia", "diaphragmatic elevation", "diaphragmatic eventration"),
    *("diffuse lung disease", "edema", "emphysema", "empyema", "endotracheal tube", "enlarged cardiomediastinum"),
    *("enlarged heart", "enlarged hilum", "enlarged lymph nodes", "fibrosis", "flattened diaphragm", "foreign body"),
    *("free air under the diaphragm", "ground glass opacity", "hemothorax", "hernia", "hiatal hernia"),
    *("hilar lymphadenopathy", "hydropneumothorax", "hyperinflation", "implantable defibrillator", "infiltration"),
    *("interstitial edema", "interstitial lung disease", "interstitial opacity", "kerley b lines", "kyphosis"),
    *("left lower lobe opacity", "left pleural effusion", "left ventricular enlargement", "lobar pneumonia"),
    *("lung abscess", "lung cancer", "lung collapse", "lung lesion", "lung mass", "lung metastases", "lung nodule"),
    *("lung opacity", "lymphadenopathy", "mass", "mediastinal mass", "mediastinal shift", "miliary pattern"),
    *("multiple nodules", "nasogastric tube", "nodule", "osteopenia", "pericardial effusion", "perihilar opacity"),
    *("picc line", "pleural calcification", "pleural effusion", "pleural mass", "pleural plaque"),
    *("pleural thickening", "pneumomediastinum", "pneumonia", "pneumoperitoneum", "pneumothorax"),
    *("pulmonary arterial hypertension", "pulmonary congestion", "pulmonary edema", "pulmonary embolism"),
    *("pulmonary fibrosis", "pulmonary vascular congestion", "reticular pattern", "rib fracture"),
    *("right lower lobe opacity", "right middle lobe opacity", "right pleural effusion", "right upper lobe opacity"),
    *("rounded atelectasis", "sarcoidosis", "scarring", "scoliosis", "silicosis", "skeletal deformity"),
    *("small pleural effusion", "sternotomy wires", "subcutaneous emphysema", "support devices", "surgical clips"),
    *("tension pneumothorax", "tracheal deviation", "tracheostomy tube", "tuberculosis", "vertebral fracture"),
    *("viral pneumonia", "widened mediastinum"),
)
BREAST = (
    *("architectural distortion", "asymmetry", "axillary lymph node", "benign calcification", "benign lesion"),
    *("breast cancer", "breast cyst", "breast mass", "calcification", "circumscribed mass", "clustered calcifications"),
    *("dense breast", "extremely dense breast tissue", "fatty breast", "fibroadenoma", "focal asymmetry"),
    *("global asymmetry", "heterogeneously dense breast tissue", "intramammary lymph node", "lipoma"),
    *("malignant calcification", "malignant lesion", "microcalcifications", "nipple retraction"),
    *("post surgical change", "scattered fibroglandular densities", "skin retraction", "skin thickening"),
    *("spiculated mass", "suspicious calcification", "suspicious lymph node", "vascular calcification"),
)
